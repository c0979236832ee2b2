//! The daemon's settings: from the command line, then from the `--config` file, then the defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};

use super::address::AdminAddress;
use super::cli::LogFormat;
use crate::array::error::ArrayError;
use crate::array::{MAX_SESSIONS, Options};
use crate::catalog::names::{IscsiName, ObjectName};
use crate::memory;
use crate::portal::Limits;
use crate::units::Size;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// The answer to a request for a port without authentication.
pub(super) const NOT_INSECURE: &str = "a TCP port has TLS and is for holders of a token, which 'cleave token create' makes \
    over the UNIX socket";

/// Bounds of `io_threads`.
const IO_THREADS: std::ops::RangeInclusive<usize> = 1..=1024;

/// Bounds of the numbers of connections and sessions.
const CONNECTIONS: std::ops::RangeInclusive<usize> = 1..=MAX_SESSIONS;

/// Bounds of `memory` under `[limits]`, in bytes.
const MEMORY: std::ops::RangeInclusive<u64> = memory::MINIMUM..=1 << 50;

/// A `--config` file: TOML, every key optional, none unknown.
///
/// ```toml
/// listen = ["127.0.0.1:3260", "[::1]:3260"]   # portals
/// admin = "unix:/run/cleave/admin.sock"       # admin API; the same as 'address' in the table [admin]
/// log = "info,cleave::portal=debug"           # filter; read again at SIGHUP
/// log_format = "json"                         # text or json
/// io_threads = 32                             # threads that wait for disk I/O
///
/// [admin]                                     # instead of the line above
/// address = "tcp:192.0.2.1:3261"              # TLS, for holders of a token
/// certificate = "/etc/cleave/admin.crt"       # PEM; without it the daemon makes one. Read again at SIGHUP
/// key = "/etc/cleave/admin.key"               # its private key
///
/// [limits]
/// memory = "512MiB"                           # most memory for the data of commands, at least 64MiB
/// sessions = 4096                             # most iSCSI sessions
/// sessions_per_initiator = 64                 # most of one initiator, who gets no more than his share either
/// logins = 1024                               # most connections that have not logged in yet
/// logins_per_address = 256                    # most of them from one IPv4 address or IPv6 network of 64 bits
///
/// [iscsi]
/// cold_reset = ["iqn.2026-11.com.example:a"]  # initiators that may use TARGET COLD RESET; read again at SIGHUP
///
/// [tcmu]
/// read_only = ["secondary"]                   # cleave-tcmu: these refuse to be written through LIO
/// [tcmu.copy_reach]                           # cleave-tcmu: beside the LU that an EXTENDED COPY is sent to,
/// primary = ["tape0"]                         # it reaches these objects
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Portals.
    #[serde(default)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Admin API.
    #[serde(default)]
    pub(crate) admin: AdminConfig,
    /// The filter of log lines.
    pub(crate) log: Option<String>,
    /// The form of log lines.
    pub(crate) log_format: Option<LogFormat>,
    /// The most threads that wait for disk I/O.
    pub(crate) io_threads: Option<usize>,
    /// The limits of what initiators may use of the machine.
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    /// The iSCSI front.
    #[serde(default)]
    pub(crate) iscsi: IscsiConfig,
    /// The kernel front. Only `cleave-tcmu` reads it.
    #[serde(default)]
    pub tcmu: TcmuConfig,
}

/// The admin API: its address alone, or a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AdminConfig {
    /// The address.
    pub(crate) address: Option<AdminAddress>,
    /// The files of the certificate and its private key, for a TCP port.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

impl<'de> Deserialize<'de> for AdminConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressOrTable)
    }
}

struct AddressOrTable;

impl<'de> Visitor<'de> for AddressOrTable {
    type Value = AdminConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an admin address, or a table with address, certificate and key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<AdminConfig, E> {
        Ok(AdminConfig { address: Some(text.parse().map_err(E::custom)?), certificate: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AdminConfig, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            address: Option<AdminAddress>,
            certificate: Option<PathBuf>,
            key: Option<PathBuf>,
        }
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        let certificate = match (table.certificate, table.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(serde::de::Error::custom("admin.certificate and admin.key go together")),
        };
        Ok(AdminConfig { address: table.address, certificate })
    }
}

/// The limits of what initiators may use of the machine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    /// The most memory for the data of commands ([`memory`]), shared fairly among initiators, beside
    /// [`PER_SESSION`](memory::PER_SESSION) for each session.
    #[serde(default, deserialize_with = "size")]
    pub(crate) memory: Option<Size>,
    /// The most iSCSI sessions; fewer if the limit of open files leaves no room for so many.
    pub(crate) sessions: Option<usize>,
    /// The most sessions of one initiator.
    pub(crate) sessions_per_initiator: Option<usize>,
    /// The most connections that have not logged in.
    pub(crate) logins: Option<usize>,
    /// The most connections from one IPv4 address or IPv6 network of 64 bits that have not logged in.
    pub(crate) logins_per_address: Option<usize>,
}

/// A size as people write it.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Size>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(u64),
        Text(String),
    }
    match Written::deserialize(deserializer) {
        Ok(Written::Bytes(bytes)) => Ok(Some(Size(bytes))),
        Ok(Written::Text(text)) => text.parse().map(Some).map_err(serde::de::Error::custom),
        Err(_) => Err(serde::de::Error::custom("a size is a number of bytes, or a text as in \"512MiB\"")),
    }
}

impl LimitsConfig {
    /// The limits of the iSCSI target.
    pub(super) fn connections(&self) -> Limits {
        let default = Limits::default();
        Limits {
            sessions: self.sessions.unwrap_or(default.sessions),
            sessions_per_initiator: self.sessions_per_initiator.unwrap_or(default.sessions_per_initiator),
            logins: self.logins.unwrap_or(default.logins),
            logins_per_address: self.logins_per_address.unwrap_or(default.logins_per_address),
            ..default
        }
    }

    /// Checks the settings. An error is the wrong key, and why it is wrong.
    fn check(&self) -> Result<(), (String, String)> {
        if let Some(size) = self.memory.filter(|size| !MEMORY.contains(&size.0)) {
            let (least, most) = (Size(*MEMORY.start()), Size(*MEMORY.end()));
            return Err(("limits.memory".to_owned(), format!("is {size}, not within {least} to {most}")));
        }
        let Limits { sessions, logins, .. } = self.connections();
        for (key, part, of, all) in [
            ("sessions_per_initiator", self.sessions_per_initiator, "sessions", sessions),
            ("logins_per_address", self.logins_per_address, "logins", logins),
        ] {
            if let Some(part) = part.filter(|part| *part > all && CONNECTIONS.contains(part)) {
                let why = format!("is {part}, more than limits.{of}, which is {all}");
                return Err((format!("limits.{key}"), why));
            }
        }
        let counts = [
            ("sessions", self.sessions),
            ("sessions_per_initiator", self.sessions_per_initiator),
            ("logins", self.logins),
            ("logins_per_address", self.logins_per_address),
        ];
        let wrong = |(_, count): &(&str, Option<usize>)| count.is_some_and(|it| !CONNECTIONS.contains(&it));
        counts.into_iter().find(wrong).map_or(Ok(()), |(key, count)| {
            let (count, least, most) = (count.unwrap_or(0), CONNECTIONS.start(), CONNECTIONS.end());
            Err((format!("limits.{key}"), format!("is {count}, not within {least} to {most}")))
        })
    }
}

/// The settings of the iSCSI target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IscsiConfig {
    /// Initiators that may end every session of a target by TARGET COLD RESET (RFC 7143 11.5.1). No others may.
    #[serde(default)]
    pub(crate) cold_reset: BTreeSet<IscsiName>,
}

/// The settings of LIO's user backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcmuConfig {
    /// For an object, further objects that a third-party copy that is sent to it may reach. The kernel does not tell
    /// which initiator sends the copy, so this holds for all initiators that the kernel lets in (CVE-2021-3139).
    #[serde(default)]
    pub copy_reach: BTreeMap<ObjectName, Vec<ObjectName>>,
    /// Objects that cannot be written over LIO. LIO's own `write_protect` looks only at a command's data, and lets
    /// commands through that change a medium without data.
    #[serde(default)]
    pub read_only: Vec<ObjectName>,
}

impl ConfigFile {
    /// The settings in `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, ArrayError> {
        let asked = format!("read the configuration {}", path.display());
        let io = |error: std::io::Error| ArrayError::io(asked.as_str(), path.display(), &error);
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > MAX_BYTES {
            let why = format!("it has {length} bytes, more than {MAX_BYTES}");
            return Err(ArrayError::usage(asked, why, "name a TOML file with daemon settings"));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        Self::parse(&text).map_err(|why| ArrayError::usage(asked, why, "correct the file"))
    }

    /// The keys whose settings differ in `other`, except for those that a running daemon applies.
    pub(super) fn differing(&self, other: &Self) -> Vec<&'static str> {
        let Self { listen, admin, log: _, log_format, io_threads, limits, iscsi, tcmu } = self;
        let IscsiConfig { cold_reset: _ } = iscsi;
        let keys = [
            ("listen", *listen == other.listen),
            ("admin", *admin == other.admin),
            ("log_format", *log_format == other.log_format),
            ("io_threads", *io_threads == other.io_threads),
            ("limits", *limits == other.limits),
            ("tcmu", *tcmu == other.tcmu),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }

    /// The settings of the array.
    pub(super) fn options(&self) -> Options {
        let default = Options::default();
        Options {
            io_threads: self.io_threads.unwrap_or(default.io_threads),
            memory: self.limits.memory.map_or(default.memory, |size| size.0),
            ..default
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("insecure")) {
            return Err(format!("'insecure' is no setting any more: {NOT_INSECURE}"));
        }
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            // An error about a whole table is at the table's header, and the key before the header is none of the table's.
            let whole =
                line.and_then(|line| text.lines().nth(line - 1)).is_some_and(|it| it.trim().starts_with('['));
            let key =
                line.filter(|_| !whole).and_then(|line| keys(text).filter(|(at, _)| *at <= line).last());
            let message = error.message().trim().replace('\n', " ");
            match (line, key) {
                // Errors about keys name the key.
                (Some(line), Some((_, key))) if !message.contains(" field `") => {
                    format!("line {line}: {key}: {message}")
                }
                (Some(line), _) => format!("line {line}: {message}"),
                (None, _) => message,
            }
        })?;
        let wrong = |(key, why): (String, String)| match keys(text).find(|(_, at)| *at == key) {
            Some((line, _)) => format!("line {line}: {key} {why}"),
            None => format!("{key} {why}"),
        };
        config.limits.check().map_err(wrong)?;
        if let Some(count) = config.io_threads.filter(|count| !IO_THREADS.contains(count)) {
            let (least, most) = (IO_THREADS.start(), IO_THREADS.end());
            let why = format!("is {count}, not within {least} to {most}");
            return Err(wrong(("io_threads".to_owned(), why)));
        }
        Ok(config)
    }
}

/// The keys of a TOML text, where a line begins with one, each with its line number and table.
fn keys(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut table = String::new();
    text.lines().enumerate().filter_map(move |(at, line)| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            table = format!("{}.", header.0.trim());
            return None;
        }
        let (key, _) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        Some((at + 1, format!("{table}{}", key.trim())))
    })
}

impl<'de> Deserialize<'de> for AdminAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_needs_a_restart_is_named() {
        let parse = |text| ConfigFile::parse(text).unwrap();
        let started = parse("log = 'info'\nio_threads = 4");
        assert!(started.differing(&parse("log = 'debug'\nio_threads = 4")).is_empty());
        let granted = parse("io_threads = 4\n[iscsi]\ncold_reset = ['iqn.2026-11.com.example:a']");
        assert!(started.differing(&granted).is_empty(), "a running daemon takes it over");
        let edited = parse("listen = ['127.0.0.1:0']\n[tcmu]\nread_only = ['a']");
        assert_eq!(started.differing(&edited), ["listen", "io_threads", "tcmu"]);
    }

    #[test]
    fn settings_are_typed_and_unknown_ones_refused() {
        let config = ConfigFile::parse(
            "listen = ['127.0.0.1:0', '[::1]:3260']\nadmin = 'unix:/s'\nlog_format = 'json'\nio_threads = 4",
        )
        .unwrap();
        assert_eq!(config.listen.len(), 2);
        let admin = AdminConfig { address: Some(AdminAddress::Unix("/s".into())), certificate: None };
        assert_eq!(config.admin, admin);
        assert_eq!(config.log_format, Some(LogFormat::Json));
        for old in ["insecure = true", "insecure = false"] {
            assert!(ConfigFile::parse(old).unwrap_err().contains("'cleave token create'"));
        }
        let config =
            ConfigFile::parse("[admin]\naddress = 'tcp:[::1]:1'\ncertificate = '/c'\nkey = '/k'").unwrap();
        assert_eq!(config.admin.address, Some("tcp:[::1]:1".parse().unwrap()));
        assert_eq!(config.admin.certificate, Some(("/c".into(), "/k".into())));
        for (bad, why) in [
            ("[admin]\nkey = '/k'", "admin.certificate and admin.key go together"),
            ("[admin]\ncertificate = '/c'", "go together"),
            (
                "listen = ['127.0.0.1:0']\n[admin]\nkey = '/k'",
                "line 2: admin.certificate and admin.key go together",
            ),
            ("[admin]\nadress = 'unix:/s'", "unknown field `adress`"),
            ("[admin]\naddress = 'x'", "'x' is not an admin address"),
            ("admin = 1", "expected an admin address, or a table"),
        ] {
            let error = ConfigFile::parse(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let config = ConfigFile::parse("[tcmu.copy_reach]\nprimary = ['tape0', 'secondary']").unwrap();
        assert_eq!(config.tcmu.copy_reach[&"primary".parse().unwrap()].len(), 2);
        let config = ConfigFile::parse("[tcmu]\nread_only = ['secondary']").unwrap();
        assert_eq!(config.tcmu.read_only[0].to_string(), "secondary");
        let config =
            ConfigFile::parse("[iscsi]\ncold_reset = ['IQN.2026-11.com.Example:A', 'eui.0123456789ABCDEF']");
        let granted: Vec<_> = config.unwrap().iscsi.cold_reset.into_iter().map(String::from).collect();
        assert_eq!(granted, ["eui.0123456789abcdef", "iqn.2026-11.com.example:a"]);
        for bad in
            ["iscsi.cold_reset = ['a']", "iscsi.cold_reset = 'iqn.2026-11.com.example:a'", "iscsi.reset = []"]
        {
            assert!(ConfigFile::parse(bad).is_err(), "{bad}");
        }
        let limits = ConfigFile::parse("[limits]\nsessions = 8\nlogins_per_address = 2").unwrap().limits;
        assert!(ConfigFile::parse("[limits]\nlogins = 5").is_ok(), "what is not set gives way");
        let of = limits.connections();
        assert_eq!((of.sessions, of.logins_per_address, of.logins), (8, 2, Limits::default().logins));
        for (bad, why) in [
            ("limits.sessions = 0", "line 1: limits.sessions is 0, not within 1 to 4096"),
            ("[limits]\n# few\nsessions = 0", "line 3: limits.sessions is 0, not within 1 to 4096"),
            ("limits = { sessions = 0 }", "limits.sessions is 0, not within 1 to 4096"),
            (
                "[limits]\nlogins = 5\nlogins_per_address = 6",
                "line 3: limits.logins_per_address is 6, more than limits.logins, which is 5",
            ),
            (
                "limits.sessions_per_initiator = 4096\nlimits.sessions = 8",
                "line 1: limits.sessions_per_initiator is 4096, more than limits.sessions, which is 8",
            ),
            ("[limits]\nlogins = 'many'", "line 2: limits.logins: invalid type: string"),
            ("log = 'info'\nio_threads = 0", "line 2: io_threads is 0, not within 1 to 1024"),
            ("limits.logins = 4097", "limits.logins is 4097, not within 1 to 4096"),
            ("limits.session = 1", "unknown field `session`"),
        ] {
            let error = ConfigFile::parse(bad).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let config = ConfigFile::parse("[limits]\nmemory = '64MiB'").unwrap();
        assert_eq!((config.options().memory, config.options().io_threads), (64 << 20, 32));
        assert_eq!(ConfigFile::parse("limits.memory = 67108864").unwrap(), config);
        let unreadable = ConfigFile::parse("[limits]\nmemory = true").unwrap_err();
        assert!(
            unreadable.starts_with("line 2: limits.memory: a size is a number of bytes, or a text"),
            "{unreadable}"
        );
        assert_eq!(ConfigFile::default().options().memory, 512 << 20);
        for bad in ["limits.memory = '63MiB'", "limits.memory = 'much'", "limits.mem = '1GiB'"] {
            assert!(ConfigFile::parse(bad).is_err(), "{bad}");
        }
        for bad in ["tcmu.copy_reach.a = ['../b']", "tcmu.reach = {}"] {
            assert!(ConfigFile::parse(bad).is_err(), "{bad}");
        }
        for bad in ["listn = []", "listen = ['x']", "admin = 'x'", "io_threads = 0", "io_threads = 1e9", "]"]
        {
            assert!(ConfigFile::parse(bad).is_err(), "{bad}");
        }
        let misspelt = ConfigFile::parse("log = 'info'\nlistn = []").unwrap_err();
        assert!(misspelt.starts_with("line 2: unknown field `listn`"), "{misspelt}");
        assert_eq!(ConfigFile::parse(""), Ok(ConfigFile::default()));
    }
}
