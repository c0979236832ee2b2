//! Size costs nothing: a petabyte is created, mapped, split and used on an ordinary file system.

use crate::daemon::Daemon;
use crate::raw::Raw;

const TARGET: &str = "iqn.2026-11.internal.cleave:scale";
const PIB: u64 = 1 << 50;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

#[test]
fn a_pebibyte_is_created_mapped_split_and_written_at_its_end() {
    let daemon = Daemon::fresh(&[]);
    for arguments in [
        "volume create big 1PiB",
        "volume create frozen 1PiB",
        "target create iqn.2026-11.internal.cleave:scale",
        "lun map big --target iqn.2026-11.internal.cleave:scale --lun 0",
        "lun map frozen --target iqn.2026-11.internal.cleave:scale --lun 1",
        "pair create big frozen --name pib --defer",
    ] {
        daemon.text(&arguments.split(' ').collect::<Vec<_>>());
    }
    let mut raw = Raw::login(&daemon.portal().to_string(), TARGET, "iqn.2026-11.internal.cleave:scale-1", 1)
        .expect("login");
    raw.settle(0).expect("LUN 0 becomes ready");
    raw.settle(1).expect("LUN 1 becomes ready");
    let places = [0, PIB / 1024, (17 << 40) / 512, PIB / 512 - 8];
    for lba in places {
        assert_eq!(raw.write(0, lba, &[0x11; 4096]).expect("WRITE(16)").status, 0, "at LBA {lba}");
    }
    let before = resident_kib(daemon.pid());
    let split = daemon.json(&["pair", "split", "pib", "--quick"]);
    assert!(split["elapsed_us"].is_u64() && split["hold_us"].is_u64(), "{split}");
    for lba in places {
        assert_eq!(raw.write(0, lba, &[0x22; 4096]).expect("WRITE(16)").status, 0, "at LBA {lba}");
    }
    for lba in places {
        assert_eq!(
            raw.read(1, lba, 8).expect("READ(16)").data,
            [0x11; 4096],
            "the split instant at LBA {lba}"
        );
        assert_eq!(raw.read(0, lba, 8).expect("READ(16)").data, [0x22; 4096], "the primary at LBA {lba}");
    }
    daemon.text(&["pair", "wait", "pib", "--state", "psus", "--timeout", "60"]);
    assert_eq!(raw.read(1, PIB / 512 - 8, 8).expect("READ(16)").data, [0x11; 4096]);
    let after = resident_kib(daemon.pid());
    assert!(after < before + 32 * 1024, "a split of 1 PiB grew the daemon from {before} to {after} KiB");
}

#[test]
fn the_daemon_may_open_as_many_files_as_the_system_allows() {
    let daemon = Daemon::fresh(&[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("the daemon runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard limit: {line}");
}
