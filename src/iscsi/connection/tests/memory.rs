//! The memory for the data of commands: exact figures, refusals, and that every session gets its turn.

use std::collections::VecDeque;

use super::*;
use crate::iscsi::output::data_in_cost;
use crate::iscsi::pdu::Residual;
use crate::iscsi::pdu::nop::NopOut;
use crate::iscsi::transfer::{MAX_DATA_IN, MAX_DATA_OUT};
use crate::memory::{GRAIN, OWN};

const MIB: u64 = 1 << 20;

/// The cost of a command with `length` bytes of data-in, for a peer that declares the default segment of 8192 bytes.
fn cost(length: u64) -> u64 {
    data_in_cost(length, &Terms::DEFAULT)
}

fn commands(peer: &mut Peer) -> Vec<Command> {
    let events = std::iter::from_fn(|| peer.poll());
    let commands = events.map(|event| match event {
        Event::Command(command) => command,
        other => panic!("{other:?}"),
    });
    commands.collect()
}

#[test]
fn reads_without_room_cost_nothing_and_tell_what_there_would_have_been() {
    let mut peer = Peer::logged_in(&[]);
    for tag in 0..64 {
        peer.scsi(&read(tag, 0), &[]);
    }
    let commands = commands(&mut peer);
    assert_eq!(commands.len(), 64);
    assert!(commands.iter().all(|command| (command.room, command.data_in.capacity()) == (0, 0)));
    assert_eq!(peer.budget.used(), 0);
    peer.connection.complete(0, CommandEnd { wanted_in: 16 * MIB, ..good() });
    let Response::Scsi(response) = peer.one().pdu else { panic!() };
    assert_eq!(response.residual, Residual::Overflow(16 << 20));
}

#[test]
fn reads_are_charged_by_what_can_be_sent_until_it_is_sent() {
    let mut peer = Peer::logged_in(&[]);
    for tag in 0..64 {
        peer.scsi(&read(tag, MAX_DATA_IN), &[]);
    }
    let first = commands(&mut peer);
    assert_eq!(first.len() as u64, READ_LIMIT / u64::from(MAX_DATA_IN));
    let each = cost(16 * MIB);
    assert_eq!(each, 16 * MIB + 2048 * 256);
    assert_eq!(peer.budget.used(), 2 * each);
    for command in &first {
        peer.connection.complete(command.tag, CommandEnd { data_in: vec![1; 16 << 20], ..good() });
        assert_eq!(peer.poll(), None);
    }
    assert_eq!(peer.budget.used(), 2 * each, "the host that does not read holds this and no more");
    peer.take();
    assert_eq!((commands(&mut peer).len(), peer.budget.used()), (2, 2 * each));
}

#[test]
fn less_data_than_room_gives_the_rest_back_at_once() {
    let mut peer = Peer::logged_in(&[]);
    peer.scsi(&read(1, 1 << 20), &[]);
    peer.command();
    peer.connection.complete(1, CommandEnd { data_in: vec![1; 300_000], ..good() });
    assert_eq!(peer.budget.used(), cost(300_000));
    peer.take();
    assert_eq!(peer.budget.used(), 0);
}

#[test]
fn an_ordered_write_whose_data_never_comes_lifts_no_limit() {
    let mut peer = Peer::logged_in(&[("InitialR2T", "No")]);
    let (mut asked, mut sent) = (0, 0);
    for tag in 0..12 {
        let promised = tag == 0;
        let ordered =
            ScsiCommand { attribute: Attribute::Ordered, is_final: !promised, ..write(tag, MAX_DATA_OUT) };
        peer.scsi(&ordered, &[]);
        // All data that was asked for comes; nothing else does.
        loop {
            assert_eq!(peer.poll(), None);
            let got = peer.take();
            if got.is_empty() {
                break;
            }
            for got in got {
                let Response::ReadyToTransfer(r2t) = got.pdu else { panic!("{got:?}") };
                asked += u64::from(r2t.desired_length);
                for at in (0..r2t.desired_length).step_by(65_536) {
                    let is_final = at + 65_536 == r2t.desired_length;
                    let pdu = data(r2t.tag, r2t.transfer_tag, at / 65_536, r2t.buffer_offset + at, is_final);
                    peer.data_out(&pdu, &[0; 65_536]);
                    sent += 65_536;
                    assert_eq!(peer.poll(), None);
                }
            }
        }
    }
    // The first task holds its charge, and one other task fits beside it.
    assert_eq!((asked, sent), (16 * MIB, 16 * MIB));
    assert_eq!(peer.budget.used(), 32 * MIB);
    // When the first task is aborted, the others go on.
    peer.task(TaskFunction::ABORT_TASK, 1000, 0, 100);
    assert!(matches!(peer.poll(), Some(Event::Manage(_))));
    peer.abort_announced(|tag| tag == 0);
    assert_eq!(peer.command().tag, 1);
    assert_eq!(peer.budget.used(), 32 * MIB, "the next has its charge");
}

#[test]
fn sessions_of_one_name_hold_a_half_at_most_and_another_name_gets_its_share() {
    let budget = Budget::new(64 * MIB);
    let mut hogs: Vec<_> = (0..16).map(|_| Peer::of(&budget, "hog").log_in(&[])).collect();
    for hog in &mut hogs {
        (0..64).for_each(|tag| hog.scsi(&read(tag, 1 << 20), &[]));
        commands(hog);
    }
    let each = cost(MIB);
    assert_eq!(budget.used(), 32 * MIB / each * each);
    let mut other = Peer::of(&budget, "other").log_in(&[]);
    (0..64).for_each(|tag| other.scsi(&read(tag, 1 << 20), &[]));
    assert_eq!(commands(&mut other).len() as u64, (64 * MIB - budget.account("hog").held()) / 2 / each);
    // Each charge that a hog gives back wakes a waiting task, of either name.
    let waiting = hogs.iter().filter(|hog| hog.granted.0.load(Ordering::SeqCst)).count();
    assert_eq!(waiting, 0);
    drop(hogs.remove(0));
    assert!(!commands(&mut other).is_empty());
    let (held, free) = (budget.account("other").held(), 64 * MIB - budget.used());
    assert!(held <= free, "{held} held, {free} free");
}

#[test]
fn unsolicited_data_without_room_is_forgotten_and_the_command_repeated_by_its_host() {
    let budget = Budget::new(64 * MIB);
    let _all = budget.account("hog").try_charge(64 * MIB).unwrap();
    let mut peer = Peer::of(&budget, "a").log_in(&[("InitialR2T", "No")]);
    // Four bursts of 64 KiB fit into the session's own; the fifth does not.
    for tag in 0..4 {
        peer.scsi(&ScsiCommand { is_final: false, ..write(tag, 1 << 20) }, &[0; 1024]);
    }
    peer.scsi(&ScsiCommand { is_final: false, ..write(4, 1 << 20) }, &[0; 1024]);
    assert!(peer.quiet().is_empty());
    assert_eq!(peer.announced, [0, 1, 2, 3], "no unit is to know of the fifth");
    peer.data_out(&data(4, NO_TAG, 0, 1024, true), &[0; 64_512]);
    let Response::Scsi(response) = peer.quiet().remove(0).pdu else { panic!() };
    assert_eq!((response.tag, response.status), (4, Status::TaskSetFull.code()));
    assert_eq!(response.residual, Residual::Underflow(1 << 20));
    assert_eq!(budget.used(), 64 * MIB);
    // A ping and a function are answered as usual.
    let nop = NopOut {
        immediate: true,
        lun: Lun::from_number(0).unwrap(),
        tag: 9,
        transfer_tag: NO_TAG,
        cmd_sn: 0,
        exp_stat_sn: 0,
    };
    let mut bhs = Bhs([0; 48]);
    nop.emit(0, &mut bhs);
    peer.send(&bhs, &[]);
    assert!(matches!(peer.quiet()[..], [Got { pdu: Response::NopIn(_), .. }]));
    peer.task(TaskFunction::ABORT_TASK_SET, 1000, NO_TAG, 0);
    assert!(matches!(peer.poll(), Some(Event::Manage(_))));
    peer.abort_announced(|_| true);
    // The session's own bytes are free again: this single command is not answered BUSY.
    peer.scsi(&write(5, 65_536), &[0; 65_536]);
    assert_eq!(peer.command().tag, 5);
}

#[test]
fn small_commands_pass_by_a_large_one_that_waits() {
    let budget = Budget::new(64 * MIB);
    let all = budget.account("hog").try_charge(64 * MIB).unwrap();
    let mut peer = Peer::of(&budget, "a").log_in(&[("ImmediateData", "No")]);
    peer.scsi(&write(1, 1 << 20), &[]);
    for tag in 10..10 + (OWN / GRAIN) as u32 {
        peer.scsi(&read(tag, 4096), &[]);
    }
    peer.scsi(&read(900, 4096), &[]);
    let got = commands(&mut peer);
    assert_eq!(got.len() as u64, OWN / GRAIN);
    assert!(peer.take().is_empty());
    peer.connection.complete(10, CommandEnd { data_in: vec![0; 4096], ..good() });
    assert_eq!(commands(&mut peer).len(), 0, "not before its data is sent");
    peer.take();
    assert_eq!(peer.command().tag, 900);
    drop(all);
    assert!(matches!(peer.quiet()[..], [Got { pdu: Response::ReadyToTransfer(_), .. }, ..]));
    assert_eq!(budget.used(), MIB);
}

#[test]
fn immediate_data_within_the_sessions_own_touches_no_budget() {
    let mut peer = Peer::logged_in(&[]);
    let commands: Vec<_> = (0..32)
        .map(|tag| {
            peer.scsi(&write(tag, 4096), &[tag as u8; 4096]);
            peer.command()
        })
        .collect();
    assert!(commands.iter().all(|command| command.data_out.capacity() == 4096));
    assert_eq!((commands.len(), peer.budget.used()), (32, 0));
    peer.scsi(&read(99, OWN as u32), &[]);
    peer.command();
    assert_eq!(peer.budget.used(), cost(OWN), "what does not fit beside the 32 is the budget's");
}

#[test]
fn a_session_that_ends_gives_everything_back() {
    let mut peer = Peer::logged_in(&[("InitialR2T", "No")]);
    peer.scsi(&write(1, 1 << 20), &[]);
    peer.scsi(&read(2, 1 << 20), &[]);
    peer.command();
    peer.connection.complete(2, CommandEnd { data_in: vec![0; 1 << 20], ..good() });
    assert_eq!(peer.budget.used(), MIB + cost(MIB));
    let budget = Arc::clone(&peer.budget);
    drop(peer);
    assert_eq!(budget.used(), 0);
}

#[test]
fn running_commands_stay_charged_when_the_connection_is_over() {
    type End = fn(&mut Peer);
    let broken: End = |peer| {
        let mut login = [0; 48];
        login[0] = 0x43;
        peer.send_bytes(&login);
        assert!(matches!(peer.poll(), Some(Event::Closed(Closed::Protocol(_)))));
    };
    let silent: End = |peer| {
        for _ in 0..2 {
            peer.now += PING_AFTER + PING_TIMEOUT;
            peer.connection.expire(peer.now);
        }
        assert_eq!(peer.poll(), Some(Event::Closed(Closed::PingTimeout)));
    };
    let lost: End = |peer| peer.connection.lost();
    for end in [broken, silent, lost] {
        let budget = Budget::new(64 * MIB);
        let mut peer = Peer::of(&budget, "a").log_in(&[("InitialR2T", "No")]);
        peer.scsi(&read(1, 4 << 20), &[]);
        peer.command();
        peer.scsi(&read(2, 1 << 20), &[]);
        peer.command();
        // The data of this task is asked for, and never comes. Another task waits for memory.
        peer.scsi(&write(3, 2 << 20), &[]);
        assert_eq!(peer.poll(), None);
        let hog = budget.account("hog").try_charge(budget.limit() - budget.used()).unwrap();
        peer.scsi(&write(4, 8 << 20), &[]);
        assert_eq!(peer.poll(), None);
        end(&mut peer);
        let running = cost(4 * MIB) + cost(MIB);
        assert_eq!(budget.used() - hog.bytes(), running, "the array has these, with their buffers");
        drop(hog);
        assert_eq!(budget.used(), running, "nothing is granted to who is gone");
        peer.connection.complete(1, good());
        drop(peer);
        assert_eq!(budget.used(), 0);
    }
}

/// A host in [`everybody_gets_a_turn`]: sends its commands as the window allows, and sends late all the data that it
/// is asked for.
struct Host {
    peer: Peer,
    todo: VecDeque<(u32, u8, u32)>,
    owed: VecDeque<(DataOut, u32)>,
    running: Vec<Command>,
    ended: usize,
}

impl Host {
    fn step(&mut self, choice: u8) {
        match choice % 4 {
            0 => {
                if let Some((tag, kind, length)) = self.todo.pop_front() {
                    let attribute = if kind & 4 == 0 { Attribute::Simple } else { Attribute::Ordered };
                    let command = if kind & 1 == 0 { read(tag, length) } else { write(tag, length) };
                    let promised = kind & 3 == 3;
                    let command = ScsiCommand { attribute, is_final: !promised, ..command };
                    self.peer.scsi(&command, &[]);
                    if promised {
                        let first = length.min(65_536);
                        self.owed.push_back((data(tag, NO_TAG, 0, 0, true), first));
                    }
                }
            }
            1 => {
                if let Some((pdu, length)) = self.owed.pop_front() {
                    for at in (0..length).step_by(65_536) {
                        let part = (length - at).min(65_536);
                        let pdu = DataOut {
                            is_final: at + part == length,
                            data_sn: at / 65_536,
                            buffer_offset: pdu.buffer_offset + at,
                            ..pdu
                        };
                        self.peer.data_out(&pdu, &vec![0; part as usize]);
                        self.work();
                    }
                }
            }
            2 if !self.running.is_empty() => {
                let Command { tag, room, data_out, .. } = self.running.remove(0);
                let answer =
                    CommandEnd { data_in: vec![0; room], wanted_out: data_out.len() as u64, ..good() };
                self.peer.connection.complete(tag, answer);
            }
            _ => {
                for got in self.peer.take() {
                    match got.pdu {
                        Response::ReadyToTransfer(r2t) => {
                            let pdu = data(r2t.tag, r2t.transfer_tag, 0, r2t.buffer_offset, true);
                            self.owed.push_back((pdu, r2t.desired_length));
                        }
                        Response::Scsi(_) => self.ended += 1,
                        Response::DataIn(pdu) => self.ended += usize::from(pdu.status.is_some()),
                        _ => {}
                    }
                }
            }
        }
        self.work();
    }

    fn work(&mut self) {
        while let Some(event) = self.peer.poll() {
            match event {
                Event::Command(command) => self.running.push(command),
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12))]

    /// In any order, with little memory for many sessions: every command is answered once, and all memory is given
    /// back.
    #[test]
    fn everybody_gets_a_turn(
        commands in proptest::collection::vec((0usize..6, 0u8..8, 1u32..600_000), 1..40),
        choices in proptest::collection::vec((0usize..6, proptest::prelude::any::<u8>()), 0..200),
    ) {
        let budget = Budget::new(MIB);
        let hosts = ["a", "a", "a", "b", "b", "c"].into_iter().map(|name| {
            let peer = Peer::of(&budget, name).log_in(&[("InitialR2T", "No"), ("ImmediateData", "No")]);
            Host { peer, todo: VecDeque::new(), owed: VecDeque::new(), running: Vec::new(), ended: 0 }
        });
        let mut hosts: Vec<_> = hosts.collect();
        let mut expected = [0; 6];
        for (tag, (host, kind, length)) in commands.into_iter().enumerate() {
            hosts[host].todo.push_back((tag as u32, kind, length));
            expected[host] += 1;
        }
        for (host, choice) in choices {
            hosts[host].step(choice);
            proptest::prop_assert!(budget.used() <= MIB);
        }
        for _ in 0..400 {
            for host in &mut hosts {
                (0..4).for_each(|choice| host.step(choice));
            }
        }
        let ended: Vec<_> = hosts.iter().map(|host| host.ended).collect();
        proptest::prop_assert_eq!(&ended[..], &expected[..]);
        proptest::prop_assert_eq!(budget.used(), 0);
    }
}
