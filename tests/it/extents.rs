//! `volume extents`: it is what GET LBA STATUS tells hosts, and what is bounded of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{CLEAVE, Daemon};
use crate::http::ask;
use crate::raw::Raw;

const TARGET: &str = "iqn.2026-11.internal.cleave:extents";
const HOST: &str = "iqn.2026-01.example:extents";

/// The extent.
const EXTENT: u64 = 64 << 10;

/// The most lists at an entrance at once.
const MAX_WALKS: usize = 8;

/// A session that sees volumes `names` at LUN 0 and on.
fn session(daemon: &Daemon, names: &[&str]) -> Raw {
    daemon.text(&["target", "create", TARGET]);
    for (lun, name) in names.iter().enumerate() {
        daemon.text(&["lun", "map", name, "--target", TARGET, "--lun", &lun.to_string()]);
    }
    let mut raw = Raw::login(&daemon.portal().to_string(), TARGET, HOST, 1).expect("a session");
    (0..names.len()).for_each(|lun| raw.settle(u8::try_from(lun).expect("a LUN")).expect("it becomes ready"));
    raw
}

fn write(raw: &mut Raw, lun: u8, lba: u64, blocks: usize) {
    let answer = raw.write(lun, lba, &vec![0xA5; blocks * 512]).expect("WRITE(16)");
    assert_eq!(answer.status, 0, "{lba}: {:02x?}", answer.sense);
}

/// UNMAP of one range.
fn unmap(raw: &mut Raw, lba: u64, blocks: u32) {
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend_from_slice(&lba.to_be_bytes());
    list.extend_from_slice(&blocks.to_be_bytes());
    list.extend_from_slice(&[0; 4]);
    let answer = raw.command(0, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list, 0).expect("UNMAP");
    assert_eq!(answer.status, 0, "{:02x?}", answer.sense);
}

/// The runs of used extents of a volume of `size` bytes, from GET LBA STATUS at LUN `lun`.
fn by_lba_status(raw: &mut Raw, lun: u8, size: u64, block: u64) -> Vec<(u64, u64)> {
    let (mut lba, mut runs) = (0_u64, Vec::<(u64, u64)>::new());
    while lba < size / block {
        let mut cdb = [0; 16];
        (cdb[0], cdb[1]) = (0x9E, 0x12);
        cdb[2..10].copy_from_slice(&lba.to_be_bytes());
        cdb[10..14].copy_from_slice(&4096_u32.to_be_bytes());
        let answer = raw.command(lun, &cdb, &[], 4096).expect("GET LBA STATUS");
        assert_eq!(answer.status, 0, "{:02x?}", answer.sense);
        for descriptor in answer.data[8..].chunks_exact(16) {
            let first = u64::from_be_bytes(descriptor[..8].try_into().expect("eight bytes"));
            let count = u64::from(u32::from_be_bytes(descriptor[8..12].try_into().expect("four bytes")));
            assert!(first == lba && count > 0, "{descriptor:02x?} is to begin at {lba}");
            lba += count;
            if descriptor[12] & 0x0F != 0 {
                continue;
            }
            let start = first * block / EXTENT * EXTENT;
            let end = (lba * block).next_multiple_of(EXTENT).min(size);
            match runs.last_mut() {
                Some((_, last)) if *last >= start => *last = end,
                _ => runs.push((start, end)),
            }
        }
    }
    runs.into_iter().map(|(start, end)| (start, end - start)).collect()
}

/// The list of `volume extents --json`.
fn listed(daemon: &Daemon, name: &str) -> Vec<(u64, u64)> {
    let list = daemon.json(&["volume", "extents", name, "--used"]);
    let runs = list["extents"].as_array().expect("a list");
    let of = |run: &Value, field: &str| run[field].as_u64().expect("bytes");
    runs.iter().map(|run| (of(run, "offset"), of(run, "length"))).collect()
}

#[test]
fn the_list_is_what_get_lba_status_tells_a_host() {
    let daemon = Daemon::fresh(&[]);
    let size = (8 << 20) + 512;
    for (name, store) in [("db", "file"), ("quick", "mem")] {
        daemon.text(&["volume", "create", name, &size.to_string(), "--store", store]);
    }
    daemon.text(&["volume", "create", "large", "8MiB", "--block-size", "4096", "--store", "mem"]);
    let mut raw = session(&daemon, &["db", "quick", "large"]);
    for name in ["db", "quick", "large"] {
        assert_eq!(listed(&daemon, name), [], "{name} is empty");
    }
    for lun in 0..2 {
        for (lba, blocks) in [(0, 1), (127, 2), (1001, 3), (1300, 700), (4095, 1), (size / 512 - 1, 1)] {
            write(&mut raw, lun, lba, blocks);
        }
    }
    // Holes at odd places: within an extent, and over the edges of some.
    unmap(&mut raw, 1401, 7);
    unmap(&mut raw, 1537, 261);
    for (lun, name) in [(0, "db"), (1, "quick")] {
        let list = listed(&daemon, name);
        assert_eq!(list, by_lba_status(&mut raw, lun, size, 512), "{name}");
        assert_eq!(list[0], (0, 2 * EXTENT), "the first extent, and what crosses its end");
        assert_eq!(list.last(), Some(&(8 << 20, 512)), "the last extent is short");
    }
    let list = listed(&daemon, "db");
    assert!(list.len() > 4, "the hole of 261 blocks is one: {list:?}");
    // Blocks of 4096 bytes.
    for lba in [15, 16, 100, 2047] {
        let answer = raw.command(2, &write16(lba), &[0xA5; 4096], 0).expect("WRITE(16)");
        assert_eq!(answer.status, 0, "{lba}: {:02x?}", answer.sense);
    }
    let expected = [(0, 2 * EXTENT), (6 * EXTENT, EXTENT), ((8 << 20) - EXTENT, EXTENT)];
    assert_eq!(listed(&daemon, "large"), expected);
    assert_eq!(by_lba_status(&mut raw, 2, 8 << 20, 4096), expected);

    let document = daemon.json(&["volume", "extents", "large"]);
    let extents: Vec<Value> =
        expected.iter().map(|(offset, length)| json!({ "offset": offset, "length": length })).collect();
    let fields = json!({
        "volume": "large", "since": null, "size": 8 << 20, "block_size": 4096, "extent_size": EXTENT, "extents": extents
    });
    assert_eq!(document, fields);
    assert_eq!(ask(&daemon, "GET", "/v1/volumes/large/extents", "").document, fields);
    let table = daemon.text(&["volume", "extents", "large"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "OFFSET   LENGTH",
            "0        131072",
            "393216   65536",
            "8323072  65536",
            "256 KiB of 8 MiB in 3 runs"
        ]
    );
}

/// WRITE(16) of one block.
fn write16(lba: u64) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = 0x8A;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[13] = 1;
    cdb
}

#[test]
fn a_pebibyte_with_three_extents_is_listed_at_once_and_who_is_not_there_has_none() {
    let daemon = Daemon::fresh(&[]);
    daemon.text(&["volume", "create", "big", "1PiB"]);
    assert_eq!(daemon.text(&["volume", "extents", "big"]), "no used extents\n");
    let mut raw = session(&daemon, &["big"]);
    let blocks = (1_u64 << 50) / 512;
    for lba in [0, blocks / 2 + 1, blocks - 1] {
        write(&mut raw, 0, lba, 1);
    }
    let began = Instant::now();
    let expected = [(0, EXTENT), (1 << 49, EXTENT), ((1 << 50) - EXTENT, EXTENT)];
    assert_eq!(listed(&daemon, "big"), expected);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    let sentence = daemon.refusal(3, &["volume", "extents", "nope"]);
    assert_eq!(
        sentence,
        "cleave: cannot list the used extents of nope: there is no volume nope; see 'cleave volume list'\n"
    );
    assert_eq!(ask(&daemon, "GET", "/v1/volumes/nope/extents", "").status, 404);
    assert_eq!(ask(&daemon, "GET", "/v1/volumes/db@noon/extents", "").status, 404);
    daemon.refusal(4, &["volume", "delete", "big"]);
    assert_eq!(daemon.json(&["operation", "list"]), json!([]), "who looks begins nothing");
}

#[test]
fn a_split_secondary_shows_the_used_extents_of_its_instant_while_the_copy_runs_behind() {
    const COUNT: u64 = 8192;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let input = directory.path().join("in.img");
    image(&input, COUNT);
    let daemon = Daemon::fresh(&[]);
    daemon.text(&["volume", "import", "db", input.to_str().expect("UTF-8")]);
    daemon.text(&["volume", "create", "copy", &(COUNT * 2 * EXTENT).to_string()]);
    let mut raw = session(&daemon, &["db", "copy"]);
    let before = listed(&daemon, "db");
    assert_eq!(before.len() as u64, COUNT);
    daemon.text(&["pair", "create", "db", "copy", "--name", "p", "--pace", "slow", "--defer"]);
    daemon.text(&["pair", "split", "p"]);
    // What comes to the primary since, in its data and in its holes, and what goes from it.
    for at in 0..16 {
        write(&mut raw, 0, (COUNT - 1 - at * 3) * 2 * EXTENT / 512 + 77, 100);
    }
    unmap(&mut raw, (COUNT - 64) * 2 * EXTENT / 512, 4096);
    let image = listed(&daemon, "copy");
    let state = daemon.json(&["pair", "show", "p"])["state"].clone();
    assert!(image == before, "the image has other extents than the primary had at the split");
    assert_eq!(state, "psus_sp", "the copy has ended too early for this test: give it more data");
    assert_ne!(listed(&daemon, "db"), before);
    assert!(by_lba_status(&mut raw, 1, COUNT * 2 * EXTENT, 512) == before, "its hosts see others");
    daemon.text(&["pair", "pace", "p", "fast"]);
    daemon.text(&["pair", "wait", "p", "--state", "psus", "--timeout", "120"]);
    assert!(listed(&daemon, "copy") == before, "the whole image has other extents");
}

/// A sparse image with `count` pieces of data, each in an extent of its own.
fn image(path: &Path, count: u64) {
    let file = File::create(path).expect("an image");
    file.set_len(count * 2 * EXTENT).expect("a length");
    (0..count).for_each(|at| file.write_all_at(&[7; 512], at * 2 * EXTENT).expect("data"));
}

/// Asks for the list of `db`, and takes what comes first.
fn begin(daemon: &Daemon) -> (String, UnixStream) {
    let mut stream = UnixStream::connect(daemon.data_dir().join("admin.sock")).expect("the socket");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    stream.write_all(b"GET /v1/volumes/db/extents HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let mut first = [0; 12];
    stream.read_exact(&mut first).expect("answered");
    (String::from_utf8(first.to_vec()).expect("text"), stream)
}

/// The list is longer than what fits between a client that takes nothing and the daemon.
#[test]
fn a_long_list_comes_whole_and_a_client_that_goes_gives_its_place_back() {
    const COUNT: u64 = 12_000;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let input = directory.path().join("in.img");
    image(&input, COUNT);
    let daemon = Daemon::fresh(&[]);
    daemon.text(&["volume", "import", "db", input.to_str().expect("UTF-8")]);
    let list = listed(&daemon, "db");
    assert_eq!(list.len() as u64, COUNT);
    assert!((0_u64..).zip(&list).all(|(at, run)| *run == (at * 2 * EXTENT, EXTENT)));
    assert!(daemon.text(&["volume", "extents", "db"]).ends_with("750 MiB of 1.46 GiB in 12000 runs\n"));

    let mut stuck: Vec<UnixStream> = Vec::new();
    for _ in 0..MAX_WALKS {
        let (status, stream) = begin(&daemon);
        assert_eq!(status, "HTTP/1.1 200");
        stuck.push(stream);
    }
    let refused = daemon.refusal(4, &["volume", "extents", "db"]);
    assert!(
        refused.contains("8 lists of used extents are under way; repeat it when one of them"),
        "{refused}"
    );
    let refused = ask(&daemon, "GET", "/v1/volumes/db/extents", "");
    assert!(refused.status == 503 && refused.head.contains("retry-after: 1"), "{refused:?}");
    // Neither verbs nor hosts wait for them.
    daemon.text(&["volume", "rename", "db", "web"]);
    daemon.text(&["volume", "rename", "web", "db"]);
    drop(stuck.pop());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut next = begin(&daemon);
    while next.0 != "HTTP/1.1 200" {
        assert!(Instant::now() < deadline, "the place of a client that has gone is not free");
        std::thread::sleep(Duration::from_millis(5));
        next = begin(&daemon);
    }
    let mut rest = String::new();
    next.1.read_to_string(&mut rest).expect("it comes");
    assert!(rest.ends_with("]}\r\n0\r\n\r\n"), "it is not whole");
    drop((stuck, next));
    // A reader that has gone is no failure.
    let gone: Stdio = std::io::pipe().expect("a pipe").1.into();
    let mut command = std::process::Command::new(CLEAVE);
    let command = command.args(["volume", "extents", "db"]).env_remove("CLEAVE_ADMIN");
    let output = command.env("CLEAVE_DATA_DIR", daemon.data_dir()).stdout(gone).output().expect("it starts");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    // The end of the daemon waits for no client.
    let _stuck = begin(&daemon);
    assert_eq!(daemon.stop(), Some(0));
}
