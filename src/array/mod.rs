//! The array: the composition root of the core and the one door into it.
//!
//! ```text
//!   target, TCMU ──login──► Session ──submit──► lu::ItlNexus         (door)
//!   admin ──verbs──► Array ──change──► catalog ──refresh──► Sessions (targets, volumes, pairs, tapes)
//!   lu ──Executor──► worker threads ──► copy manager ──Door──► lu    (workers, copies)
//! ```
//!
//! Control verbs are serialised by one lock ([`Control`]), which no command of a host ever takes. A verb changes the
//! catalog first where something comes to be visible, and last where something has to exist before it is named; what
//! a crash leaves between the two stands in the catalog's scrap list and is swept when the array opens.

pub mod access;
pub mod catalog;
pub mod data_dir;
pub mod door;
pub mod error;
pub mod names;
pub mod request;
pub mod show;
mod targets;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

pub use access::LoginRefusal;
use catalog::{Catalog, CatalogStore, TargetEntry};
use data_dir::DataDir;
pub use door::Session;
use door::Visible;
pub use error::{ArrayError, Kind};
use names::{Iqn, Name};
use workers::Threads;

use crate::lu::LogicalUnit;
use crate::sam::{InitiatorPort, Nexus, NexusId, TargetPort};

/// Most sessions at a time.
pub const MAX_SESSIONS: usize = 4096;

/// What the operator may set about an array as a whole.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most threads that wait for disk I/O at a time.
    pub io_threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { io_threads: 32 }
    }
}

/// A running array.
pub struct Array {
    dir: DataDir,
    control: Mutex<Control>,
    sessions: Mutex<BTreeMap<NexusId, Weak<Session>>>,
    threads: Arc<Threads>,
    next_nexus: AtomicU64,
    stopping: AtomicBool,
    started_at: Timestamp,
}

/// What control verbs change, one at a time.
struct Control {
    catalog: Catalog,
    store: Box<dyn CatalogStore>,
    /// The logical unit of each volume and drive.
    units: BTreeMap<Name, Arc<LogicalUnit>>,
}

impl Control {
    /// Makes `change` to the catalog, durably, or leaves it as it was.
    fn change<T>(
        &mut self,
        asked: &str,
        change: impl FnOnce(&mut Catalog) -> Result<T, ArrayError>,
    ) -> Result<T, ArrayError> {
        let mut new = self.catalog.clone();
        let result = change(&mut new)?;
        if new != self.catalog {
            new.check()
                .map_err(|why| ArrayError::refused(asked, why, "ask for less, or for something else"))?;
            self.store
                .replace(&catalog::encode(&new))
                .map_err(|error| ArrayError::io(asked, "the catalog could not be written", &error))?;
            self.catalog = new;
        }
        Ok(result)
    }

    /// What `initiator` sees of `target`.
    fn visible(&self, target: &TargetEntry, initiator: &str) -> Vec<Visible> {
        let entries = access::visible(target, initiator).into_iter();
        let seen = entries.filter_map(|entry| {
            let unit = Arc::clone(self.units.get(&entry.object)?);
            Some(Visible { lun: entry.lun, object: entry.object.clone(), unit, read_only: entry.read_only })
        });
        seen.collect()
    }
}

impl Array {
    /// Opens the array in `data_dir`, which is made if it is absent or empty.
    pub fn open(data_dir: &Path, options: &Options) -> Result<Arc<Self>, ArrayError> {
        let dir = DataDir::open(data_dir)?;
        let store: Box<dyn CatalogStore> = Box::new(dir.catalog());
        let catalog = load(&dir, &*store)?;
        let control = Control { catalog, store, units: BTreeMap::new() };
        Ok(Arc::new(Self {
            dir,
            control: Mutex::new(control),
            sessions: Mutex::default(),
            threads: Threads::new(options.io_threads),
            next_nexus: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            started_at: Timestamp::now(),
        }))
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether `cleave serve --demo` made this array.
    #[must_use]
    pub fn is_demo(&self) -> bool {
        self.control.lock().catalog.demo
    }

    /// The names of the targets that `initiator` may log in to: what SendTargets tells (RFC 7143 C).
    #[must_use]
    pub fn discover(&self, initiator: &str) -> Vec<String> {
        access::discover(&self.control.lock().catalog, initiator).map(Iqn::to_string).collect()
    }

    /// Opens a session of `initiator` with `target` through the portals of `portal_group`.
    pub fn login(
        self: &Arc<Self>,
        initiator: InitiatorPort,
        target: &str,
        portal_group: u16,
    ) -> Result<Arc<Session>, LoginRefusal> {
        let control = self.control.lock();
        let name = target.to_ascii_lowercase();
        let entry = control.catalog.targets.get(name.as_str()).ok_or(LoginRefusal::NotFound)?;
        let initiator = InitiatorPort { name: initiator.name.to_ascii_lowercase(), ..initiator };
        if !access::admits(entry, &initiator.name) {
            return Err(LoginRefusal::Forbidden);
        }
        let mut sessions = self.sessions.lock();
        if self.stopping.load(Ordering::Acquire) || sessions.len() >= MAX_SESSIONS {
            return Err(LoginRefusal::Unavailable);
        }
        let visible = control.visible(entry, &initiator.name);
        let port = TargetPort { name, portal_group, relative_id: entry.relative_id };
        let id = self.new_nexus();
        let (array, since) = (Arc::downgrade(self), Timestamp::now());
        let on_close = Box::new(move || {
            if let Some(array) = array.upgrade() {
                array.sessions.lock().remove(&id);
            }
        });
        let session = Arc::new(Session::new(Nexus { id, initiator: Some(initiator), port }, since, on_close));
        session.refresh(&visible, false);
        sessions.insert(id, Arc::downgrade(&session));
        Ok(session)
    }

    fn new_nexus(&self) -> NexusId {
        NexusId(self.next_nexus.fetch_add(1, Ordering::Relaxed))
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().filter_map(Weak::upgrade).collect()
    }

    /// The sessions, by rising number.
    #[must_use]
    pub fn session_list(&self) -> Vec<show::Session> {
        self.sessions().iter().map(|session| session.show()).collect()
    }

    /// Ends session `id`.
    pub fn drop_session(&self, id: u64) -> Result<(), ArrayError> {
        let asked = format!("drop session {id}");
        let session = self.sessions.lock().get(&NexusId(id)).and_then(Weak::upgrade);
        let session = session.ok_or_else(|| ArrayError::not_found(asked.as_str(), "session", id))?;
        if session.drop_connections() {
            Ok(())
        } else {
            Err(ArrayError::refused(asked, "its transport cannot end it", "log out at the initiator"))
        }
    }

    /// Stops: takes no new session, ends those that are there, lets running commands finish, and flushes. Takes at
    /// most about `patience`; true if everything ended and was flushed.
    pub fn shutdown(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.stopping.store(true, Ordering::Release);
        self.sessions().iter().for_each(|session| {
            session.drop_connections();
        });
        self.threads.drain(deadline)
    }
}

/// The catalog in `store`; an empty one, written at once, if there is none.
fn load(dir: &DataDir, store: &dyn CatalogStore) -> Result<Catalog, ArrayError> {
    let asked = format!("open the data directory {}", dir.path().display());
    let failed = |error| ArrayError::io(asked.as_str(), "its catalog.json", &error);
    let Some(bytes) = store.load().map_err(failed)? else {
        let empty = Catalog::default();
        store.replace(&catalog::encode(&empty)).map_err(failed)?;
        return Ok(empty);
    };
    catalog::decode(&bytes).map_err(|error| {
        let remedy = match error {
            catalog::CatalogError::Newer(_) => "use the program that wrote it, or a newer one",
            catalog::CatalogError::Foreign => "name a directory that cleave made",
            catalog::CatalogError::Damaged(_) => {
                "restore catalog.json from a backup; it has been left as it is"
            }
        };
        ArrayError::new(Kind::Failed, asked.as_str(), format!("catalog.json: {error}"), remedy)
    })
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Array").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Arc<Array>, ArrayError> {
        Array::open(path, &Options::default())
    }

    fn initiator(name: &str) -> InitiatorPort {
        InitiatorPort { name: name.to_owned(), isid: [0x80, 0, 0, 0, 0, 1] }
    }

    #[test]
    fn a_damaged_or_newer_catalog_is_refused_and_stays_as_it_is() {
        for (bytes, word) in [
            (&b"{\"cleave_catalog\":9}\n{}"[..], "version 9"),
            (b"{\"cleave_catalog\":1,\"crc32c\":\"00000000\",\"bytes\":2}\n{}", "damaged"),
            (b"my notes\n", "not a cleave catalog"),
        ] {
            let temporary = tempfile::tempdir().unwrap();
            let path = temporary.path().join("catalog.json");
            std::fs::write(&path, bytes).unwrap();
            let refused = open(temporary.path()).unwrap_err();
            assert!(refused.to_string().contains(word), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn targets_outlive_the_daemon_and_login_obeys_the_map() {
        let temporary = tempfile::tempdir().unwrap();
        let iqn = Iqn::or_default_authority("t").unwrap();
        let array = open(temporary.path()).unwrap();
        array.create_target(&iqn).unwrap();
        assert_eq!(array.create_target(&iqn).unwrap_err().kind, Kind::Refused);
        drop(array);

        let array = open(temporary.path()).unwrap();
        assert_eq!(array.discover("iqn.2026-01.a:b"), [iqn.as_str()]);
        let session = array.login(initiator("iqn.2026-01.a:b"), iqn.as_str(), 1).unwrap();
        assert_eq!(array.session_list().len(), 1);
        assert_eq!(array.delete_target(&iqn).unwrap_err().kind, Kind::Refused, "a session uses it");
        drop(session);
        assert!(array.session_list().is_empty());
        assert_eq!(
            array.login(initiator("iqn.2026-01.a:b"), "iqn.2026-01.x", 1).unwrap_err(),
            LoginRefusal::NotFound
        );
        array.delete_target(&iqn).unwrap();
        assert!(array.shutdown(Duration::from_secs(10)));
        assert_eq!(
            array.login(initiator("iqn.2026-01.a:b"), iqn.as_str(), 1).unwrap_err(),
            LoginRefusal::NotFound
        );
    }
}
