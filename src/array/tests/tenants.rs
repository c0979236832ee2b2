//! One initiator against another on the I/O threads, with media whose reads wait for permission.

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::Condvar;

use super::*;
use crate::array::management::Management;
use crate::array::workers::Threads;
use crate::lu::disk::Disk;
use crate::lu::{Executor, ItlNexus, LogicalUnit, LunAccess, LunInventory};
use crate::memory::Charge;
use crate::sam::{InitiatorPort, NexusId, TargetPort};
use crate::store::{MemStore, Store, StoreError};
use crate::volume::{Block, Identity};

/// The longest time that the test waits for an expected event.
const SOON: Duration = Duration::from_secs(120);

/// Lets as many reads pass as it has permits.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    /// The number of reads that may still pass.
    permits: u64,
    passed: u64,
    /// The number of reads that wait.
    standing: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.standing += 1;
        self.changed.notify_all();
        while state.permits == 0 {
            self.changed.wait(&mut state);
        }
        state.permits -= 1;
        state.passed += 1;
        state.standing -= 1;
        self.changed.notify_all();
    }

    fn permit(&self, reads: u64) {
        self.state.lock().permits += reads;
        self.changed.notify_all();
    }

    /// Waits until `standing` reads wait and none may pass. Returns the number of reads that have passed.
    fn wait_for(&self, standing: usize) -> u64 {
        let mut state = self.state.lock();
        while state.standing != standing || state.permits > 0 {
            assert!(!self.changed.wait_for(&mut state, SOON).timed_out(), "{state:?}");
        }
        state.passed
    }
}

/// A medium without holes that always has to wait; for its gate, if it has one.
#[derive(Debug)]
struct Slow(MemStore, Option<Arc<Gate>>);

impl Block for Slow {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        if patience == Patience::Now {
            return Err(StoreError::WouldBlock);
        }
        self.1.iter().for_each(|gate| gate.pass());
        self.0.read(offset, buffer, patience)
    }
    fn write(
        &self,
        offset: u64,
        data: &[u8],
        durability: Durability,
        patience: Patience,
    ) -> Result<(), StoreError> {
        if patience == Patience::Now {
            return Err(StoreError::WouldBlock);
        }
        self.0.write(offset, data, durability, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.0.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, StoreError> {
        Ok((offset < self.length()).then_some(offset..self.length()))
    }
}

struct NoDoor;

impl Door for NoDoor {
    fn charge(&self, _: NexusId, _: u64) -> Option<Charge> {
        None
    }
    fn resolve(&self, _: NexusId, _: Lun, _: &Designator) -> Option<Arc<dyn Endpoint>> {
        None
    }
    fn addressed(&self, _: NexusId, _: Lun) -> Option<Arc<dyn Endpoint>> {
        None
    }
}

struct NoLuns;

impl LunInventory for NoLuns {
    fn luns(&self) -> Vec<Lun> {
        Vec::new()
    }
    fn reported(&self) {}
}

#[derive(Default)]
struct Endings {
    ended: Mutex<BTreeMap<TaskTag, Ending>>,
    changed: Condvar,
}

impl ReplySink for Endings {
    fn reply(&self, tag: TaskTag, ending: Ending) {
        assert!(self.ended.lock().insert(tag, ending).is_none(), "{tag:?} ended twice");
        self.changed.notify_all();
    }
}

/// An initiator's session with one unit.
struct Host {
    itl: ItlNexus,
    endings: Arc<Endings>,
    tag: u32,
}

impl Host {
    fn attach(unit: &Arc<LogicalUnit>, id: u64, initiator: &str) -> Self {
        let nexus = Nexus {
            id: NexusId(id),
            initiator: Some(InitiatorPort {
                name: initiator.parse().unwrap(),
                isid: [0x80, 0, 0, 0, 0, id as u8],
            }),
            port: TargetPort {
                name: "iqn.2026-01.example:t".parse().unwrap(),
                portal_group: 1,
                relative_id: 1,
            },
        };
        let access = LunAccess { read_only: false };
        let itl = unit.attach(&Arc::new(nexus), Lun::from_number(0).unwrap(), access, Arc::new(NoLuns));
        itl.clear(crate::scsi::sense::Asc::POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED);
        Self { itl, endings: Arc::default(), tag: 0 }
    }

    fn submit(&mut self, cdb: &[u8], data_out: &[u8]) -> TaskTag {
        self.tag += 1;
        let tag = TaskTag(self.tag);
        self.itl.submit(Task {
            nexus: self.itl.nexus().id,
            tag,
            attribute: Attribute::Simple,
            cdb: Cdb::new(cdb).unwrap(),
            data_out: data_out.to_vec(),
            data_in: Vec::new(),
            room: usize::MAX,
            patience: Patience::Now,
            reply: Reply::new(Arc::clone(&self.endings) as Arc<dyn ReplySink>, tag),
        });
        tag
    }

    fn wait(&self, tag: TaskTag) -> Ending {
        let mut ended = self.endings.ended.lock();
        loop {
            if let Some(ending) = ended.get(&tag) {
                return ending.clone();
            }
            assert!(!self.endings.changed.wait_for(&mut ended, SOON).timed_out(), "{tag:?} is not answered");
        }
    }

    fn good(&mut self, cdb: &[u8], data_out: &[u8]) {
        let tag = self.submit(cdb, data_out);
        match self.wait(tag) {
            Ending::Completed(outcome) => assert_eq!(outcome.status, Status::Good, "{outcome:?}"),
            Ending::Aborted => panic!("aborted"),
        }
    }
}

const LARGE: u64 = 8 << 40;
const VERIFIES: usize = 32;

struct Rig {
    gate: Arc<Gate>,
    large: Arc<LogicalUnit>,
    small: Arc<LogicalUnit>,
}

impl Rig {
    fn new(io_threads: usize) -> Self {
        let manager = Arc::new(CopyManager::new(Arc::new(NoDoor), || Timestamp::UNIX_EPOCH));
        let threads = Threads::new(io_threads, &manager, &Management::new(Weak::new()));
        let unit = |seed, medium| {
            let server = Arc::new(Disk::new("db", Arc::new(medium)));
            let executor = Arc::clone(&threads) as Arc<dyn Executor>;
            LogicalUnit::new(Identity::from_seed([seed; 16]), "unit", server, executor)
        };
        let gate = Arc::<Gate>::default();
        let large = unit(1, Slow(MemStore::new(LARGE), Some(Arc::clone(&gate))));
        let small = unit(2, Slow(MemStore::new(1 << 20), None));
        Self { gate, large, small }
    }
}

/// 32 VERIFY(16) of 2 TiB; every other one with BYTCHK 11b.
fn send_verifies(host: &mut Host) {
    for at in 0..VERIFIES {
        let mut cdb = [0x8F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0];
        match at % 2 {
            0 => host.submit(&cdb, &[]),
            _ => {
                cdb[1] = 0x06;
                host.submit(&cdb, &[0; 512])
            }
        };
    }
}

const SYNCHRONIZE_CACHE: [u8; 10] = [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const VERIFY: [u8; 10] = [0x2F, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn waiting_verifies_leave_others_their_threads() {
    let rig = Rig::new(16); // and four threads for lengthy commands
    // Two sessions of the same initiator have one share.
    let mut hosts = [1, 2].map(|id| Host::attach(&rig.large, id, HOST));
    let mut other = Host::attach(&rig.small, 3, OTHER);
    hosts.iter_mut().for_each(send_verifies);
    assert_eq!(rig.gate.wait_for(3), 0, "three threads of four");
    for _ in 0..8 {
        other.good(&WRITE, &[1; 512]);
        other.good(&VERIFY, &[]);
        other.good(&SYNCHRONIZE_CACHE, &[]);
    }
    hosts[0].good(&WRITE, &[0; 512]); // the data for the comparison of the VERIFYs
    let tag = TaskTag(hosts[0].tag);
    hosts[0].endings.ended.lock().remove(&tag);
    assert!(hosts.iter().all(|host| host.endings.ended.lock().is_empty()), "the VERIFYs are under way");
    assert_eq!(rig.gate.wait_for(3), 0);
    for host in &hosts {
        let (done, response) = mpsc::channel();
        host.itl.manage(Function::AbortTaskSet, Box::new(move |answer| done.send(answer).unwrap()));
        // VERIFYs in the middle of a piece have to pass the gate, beside those of the other session.
        let deadline = Instant::now() + SOON;
        let answer = loop {
            rig.gate.permit(3);
            match response.recv_timeout(Duration::from_millis(20)) {
                Ok(answer) => break answer,
                Err(_) => assert!(Instant::now() < deadline, "the abort is not answered"),
            }
        };
        assert_eq!(answer, FunctionResponse::Complete);
        let ended = host.endings.ended.lock();
        assert_eq!(ended.values().collect::<Vec<_>>(), vec![&Ending::Aborted; VERIFIES]);
    }
    rig.gate.permit(u64::MAX / 2);
}

#[test]
fn where_there_is_a_single_thread_a_lengthy_command_leaves_it_to_others() {
    let rig = Rig::new(1);
    let mut host = Host::attach(&rig.large, 1, HOST);
    let mut other = Host::attach(&rig.small, 2, OTHER);
    send_verifies(&mut host);
    let passed = rig.gate.wait_for(1);
    for _ in 0..8 {
        other.good(&WRITE, &[1; 512]);
        other.good(&VERIFY, &[]);
        other.good(&SYNCHRONIZE_CACHE, &[]);
    }
    assert_eq!(rig.gate.wait_for(1), passed, "one of the two threads for lengthy commands");
    assert!(host.endings.ended.lock().is_empty(), "the VERIFYs are under way");
    host.itl.manage(Function::LogicalUnitReset, Box::new(|_| ()));
    rig.gate.permit(u64::MAX / 2);
    assert_eq!(host.wait(TaskTag(VERIFIES as u32)), Ending::Aborted);
}
