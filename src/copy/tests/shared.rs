//! Copies between real logical units while another initiator uses the same units. Whatever that initiator does, a
//! copy is GOOD and everything lies on the medium in order, or the copy ends where the initiator came and says so.
//!
//! The moments are fixed by the copy: the other initiator comes before the copy's n-th WRITE is sent (at the door),
//! or when that WRITE has passed the gate and waits for a thread (at the executor). So no test depends on speed.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use parking_lot::Condvar;

use super::bench::{hex, pattern, to_disk, to_tape};
use super::*;
use crate::lu::disk::Disk;
use crate::lu::tape::{Drive, Start};
use crate::lu::{Ending, Executor, ItlNexus, LunAccess, LunInventory, Reply, ReplySink, Task};
use crate::sam::{Attribute, Function, FunctionResponse, InitiatorPort, Nexus, Status, TargetPort, TaskTag};
use crate::scsi::received::Received;
use crate::scsi::xcopy::list::Cscd;
use crate::store::{Durability, MemStore, Patience, Stopped, Store, StoreError};
use crate::tape::{Cartridge, Label, Object};
use crate::units::BlockSize;
use crate::volume::{Block, Identity};

const HOST: NexusId = NexusId(1);
const OTHER: NexusId = NexusId(2);
const DISK: u16 = 0;
const RECORD: usize = 2048;
/// Records of the copy.
const RECORDS: usize = 12;
const WRITE_6: u8 = 0x0A;

/// A medium in memory whose size and answers can change.
#[derive(Debug)]
struct Medium(MemStore);

impl Block for Medium {
    fn block_size(&self) -> BlockSize {
        BlockSize::B512
    }
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.read(offset, buffer, patience)
    }
    fn write(&self, at: u64, data: &[u8], how: Durability, patience: Patience) -> Result<(), StoreError> {
        self.0.write(at, data, how, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.0.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, StoreError> {
        self.0.next_data(offset)
    }
}

/// The store of a cartridge. A visitor may come in the middle of a write.
#[derive(Debug)]
struct Watched(MemStore, Arc<Visitor>);

impl Store for Watched {
    fn length(&self) -> u64 {
        self.0.length()
    }
    fn read(&self, offset: u64, buffer: &mut [u8], patience: Patience) -> Result<(), StoreError> {
        self.0.read(offset, buffer, patience)
    }
    fn write(&self, at: u64, data: &[u8], how: Durability, patience: Patience) -> Result<(), StoreError> {
        self.1.pass();
        self.0.write(at, data, how, patience)
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.0.flush()
    }
    fn discard(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        self.0.discard(offset, length)
    }
    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>, StoreError> {
        self.0.next_data(offset)
    }
    fn allocated(&self) -> Result<u64, StoreError> {
        self.0.allocated()
    }
    fn resize(&self, length: u64) -> Result<(), StoreError> {
        self.0.resize(length)
    }
    fn stopped(&self) -> Option<Stopped> {
        self.0.stopped()
    }
    fn reinstate(&self) -> Result<(), StoreError> {
        self.0.reinstate()
    }
}

type Visit = Box<dyn FnOnce() + Send>;

/// A visitor, who comes once.
#[derive(Default)]
struct Visitor(Mutex<Option<(usize, Visit)>>);

impl std::fmt::Debug for Visitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Visitor")
    }
}

impl Visitor {
    /// Lets the visitor come after this many WRITEs.
    fn come_at(&self, write: usize, visit: Visit) {
        *self.0.lock() = Some((write, visit));
    }

    /// A command of the copy passes here; its WRITEs are counted.
    fn pass_command(&self, cdb: &Cdb) {
        if [WRITE_6, 0x8A].contains(&cdb.opcode()) {
            self.pass();
        }
    }

    fn pass(&self) {
        let mut due = self.0.lock();
        let Some((left, _)) = due.as_mut() else { return };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let visit = due.take();
        drop(due);
        visit.into_iter().for_each(|(_, visit)| visit());
    }
}

/// Runs waiting work on the caller's thread, after the visitor has come.
#[derive(Default)]
struct Workers(Visitor);

impl Executor for Workers {
    fn blocking(&self, work: Work) {
        if ![HOST, OTHER].contains(&work.nexus()) {
            self.0.pass_command(work.cdb());
        }
        work.run();
    }

    fn third_party(&self, work: Work) {
        drop(work);
    }

    fn management(&self, work: Work) {
        drop(work);
    }
}

struct Luns;

impl LunInventory for Luns {
    fn luns(&self) -> Vec<Lun> {
        vec![]
    }

    fn reported(&self) {}
}

/// Waits for the ending of a command.
#[derive(Default)]
struct Slot(Mutex<VecDeque<Ending>>, Condvar);

impl ReplySink for Slot {
    fn reply(&self, _: TaskTag, ending: Ending) {
        self.0.lock().push_back(ending);
        self.1.notify_one();
    }
}

fn send(way: &ItlNexus, cdb: Cdb, data_out: Vec<u8>, data_in: Vec<u8>) -> Outcome {
    let slot = Arc::new(Slot::default());
    let (nexus, tag) = (way.nexus().id, TaskTag(1));
    let reply = Reply::new(Arc::clone(&slot) as Arc<dyn ReplySink>, tag);
    way.submit(Task {
        nexus,
        tag,
        attribute: Attribute::Simple,
        cdb,
        data_out,
        data_in,
        room: usize::MAX,
        patience: Patience::Now,
        reply,
    });
    let mut endings = slot.0.lock();
    loop {
        match endings.pop_front() {
            Some(Ending::Completed(outcome)) => return outcome,
            Some(Ending::Aborted) => return Outcome::status(Status::TaskAborted),
            None => slot.1.wait(&mut endings),
        }
    }
}

/// One initiator at one unit.
#[derive(Clone)]
struct Initiator(ItlNexus);

impl Initiator {
    fn attach(unit: &Arc<LogicalUnit>, id: NexusId) -> Self {
        let port =
            TargetPort { name: "iqn.2026-11.internal.cleave:t".into(), portal_group: 1, relative_id: 1 };
        let initiator =
            InitiatorPort { name: format!("iqn.2026-01.example:{}", id.0).parse().unwrap(), isid: [0x80; 6] };
        let nexus = Arc::new(Nexus { id, initiator: Some(initiator), port });
        let lun = Lun::from_number(0).unwrap();
        let this = Self(unit.attach(&nexus, lun, LunAccess::default(), Arc::new(Luns)));
        assert_eq!(this.send(&[0; 6], &[]).status, Status::CheckCondition, "it is greeted");
        this
    }

    fn send(&self, cdb: &[u8], data_out: &[u8]) -> Outcome {
        send(&self.0, Cdb::new(cdb).unwrap(), data_out.to_vec(), Vec::new())
    }

    /// Sends a command until no unit attention stands before its answer.
    fn good(&self, cdb: &[u8], data_out: &[u8]) {
        let outcome = match self.send(cdb, data_out) {
            attention if attention.sense.get(2) == Some(&6) => self.send(cdb, data_out),
            outcome => outcome,
        };
        assert_eq!((outcome.status, hex(&outcome.sense)), (Status::Good, String::new()), "{cdb:02x?}");
    }

    fn manage(&self, function: Function) {
        let answered = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&answered);
        self.0.manage(function, Box::new(move |response| *answer.lock() = Some(response)));
        // The answer may have to wait for a task that the function caught, and then comes later than this thread
        // waits.
        assert_ne!(*answered.lock(), Some(FunctionResponse::TaskDoesNotExist));
    }
}

/// A logical unit for the copy manager, with a visitor at its door.
struct Played {
    name: &'static str,
    way: ItlNexus,
    door: Arc<Visitor>,
}

impl Endpoint for Played {
    fn name(&self) -> String {
        self.name.into()
    }

    fn unit(&self) -> UnitKey {
        UnitKey::of(self.way.unit())
    }

    fn device_type(&self) -> DeviceType {
        self.way.unit().server().device_type()
    }

    fn perform(&self, cdb: Cdb, data_out: Vec<u8>, data_in: Vec<u8>) -> Outcome {
        self.door.pass_command(&cdb);
        send(&self.way, cdb, data_out, data_in)
    }

    fn prefetch(&self, _: u64, _: u32) {}
}

struct PlayedDoor {
    ways: [(&'static str, ItlNexus, Arc<Visitor>); 3],
    next: AtomicU64,
}

impl Door for PlayedDoor {
    fn resolve(&self, _: NexusId, _: Lun, designator: &Designator) -> Option<Arc<dyn Endpoint>> {
        let (name, way, door) = self.ways.get(usize::from(*designator.bytes.last()?))?;
        let id = NexusId(100 + self.next.fetch_add(1, Ordering::Relaxed));
        Some(Arc::new(Played { name, way: way.nested(id), door: Arc::clone(door) }))
    }

    fn charge(&self, _: NexusId, _: u64) -> Option<Charge> {
        Some(Charge::default())
    }

    fn addressed(&self, _: NexusId, _: Lun) -> Option<Arc<dyn Endpoint>> {
        None
    }
}

/// Two disks and a drive, the copy's initiator and another one.
struct Shared {
    manager: CopyManager,
    drive: Arc<Drive>,
    tape: Arc<LogicalUnit>,
    disks: [Arc<LogicalUnit>; 2],
    media: [Arc<Medium>; 2],
    /// The other initiator at the drive and at the second disk.
    other: Initiator,
    other_disk: Initiator,
    workers: Arc<Workers>,
    tape_door: Arc<Visitor>,
    disk_door: Arc<Visitor>,
    in_the_write: Arc<Visitor>,
    /// The copy's initiator at the three units. It has read all its unit attentions.
    hosts: [Initiator; 3],
    image: Vec<u8>,
}

fn cartridge(visitor: &Arc<Visitor>) -> Cartridge {
    let capacity = 4 << 20;
    let label = Label { identity: [7; 16], barcode: "TEST01L8".parse().unwrap(), capacity, worm: false };
    let store = MemStore::new(Label::store_length(capacity).unwrap());
    Cartridge::create(Arc::new(Watched(store, Arc::clone(visitor))), label).unwrap()
}

impl Shared {
    fn new() -> Self {
        let workers = Arc::<Workers>::default();
        let unit = |seed, server| {
            LogicalUnit::new(
                Identity::from_seed([seed; 16]),
                "unit",
                server,
                Arc::clone(&workers) as Arc<dyn Executor>,
            )
        };
        let drive = Arc::new(Drive::new());
        let tape = unit(1, Arc::clone(&drive) as Arc<_>);
        let in_the_write = Arc::<Visitor>::default();
        drive.load(cartridge(&in_the_write), Start::Beginning, None, &tape).unwrap();
        let image = pattern(RECORD * RECORDS);
        let media = [(); 2].map(|()| Arc::new(Medium(MemStore::new(1 << 20))));
        media[0].0.write(0, &image, Durability::Cached, Patience::Wait).unwrap();
        let disk = |index: usize| {
            unit(2 + index as u8, Arc::new(Disk::new("db", Arc::clone(&media[index]) as Arc<_>)))
        };
        let disks = [disk(0), disk(1)];
        let hosts = [&disks[0], &tape, &disks[1]].map(|unit| Initiator::attach(unit, HOST));
        let (other, other_disk) = (Initiator::attach(&tape, OTHER), Initiator::attach(&disks[1], OTHER));
        let (tape_door, disk_door) = (Arc::<Visitor>::default(), Arc::<Visitor>::default());
        let way = |index: usize| hosts[index].0.clone();
        let ways = [
            ("disk", way(0), Arc::default()),
            ("tape", way(1), Arc::clone(&tape_door)),
            ("other", way(2), Arc::clone(&disk_door)),
        ];
        let door = Arc::new(PlayedDoor { ways, next: AtomicU64::new(0) });
        let manager = CopyManager::new(door, || Timestamp::from_second(1_800_000_000).unwrap());
        Self {
            manager,
            drive,
            tape,
            disks,
            media,
            other,
            other_disk,
            workers,
            tape_door,
            disk_door,
            in_the_write,
            hosts,
            image,
        }
    }

    /// A copy of the image in records of [`RECORD`] bytes; in fixed-block mode in blocks of 512 bytes.
    fn list(&self, fixed: bool) -> ParameterList {
        let length = if fixed { RECORD / 512 } else { RECORD };
        let parameters = match fixed {
            true => DeviceParameters::FixedStream { block_length: 512 },
            false => DeviceParameters::VariableStream,
        };
        list_of(vec![to_tape(false, length as u32, (self.image.len() / 512) as u16, 0)], parameters)
    }

    fn run(&self, list: &ParameterList) -> Outcome {
        let data = list.emit();
        self.execute(&Command::ExtendedCopy { length: data.len() as u32 }.cdb(), &data)
    }

    fn execute(&self, cdb: &[u8], data_out: &[u8]) -> Outcome {
        let (outcome, _) = self.manager.execute(&CopyRequest {
            asker: "iqn.2026-01.example:host",
            nexus: HOST,
            via: Lun::from_number(DISK).unwrap(),
            unit: UnitKey::of(&self.disks[0]),
            format: Format::Fixed,
            cdb: &Cdb::new(cdb).unwrap(),
            data_out,
            is_cancelled: &|| false,
        });
        outcome
    }

    /// TRANSFER COUNT of the copy with identifier 1.
    fn count(&self) -> u64 {
        let data = self.execute(&Command::Status { list_id: 1, allocation: 12 }.cdb(), &[]).data_in;
        CopyStatus::parse(&data).unwrap().bytes
    }

    /// Takes the cartridge out, and returns its objects one after the other; a filemark is an empty one.
    fn blocks(&self) -> Vec<Vec<u8>> {
        let mut cartridge = self.drive.unload().unwrap().unwrap();
        cartridge.rewind();
        let mut blocks = Vec::new();
        loop {
            let mut block = vec![0; RECORD];
            match cartridge.read(&mut block, Patience::Wait).unwrap() {
                Object::Block(length) => {
                    block.truncate(length as usize);
                    blocks.push(block);
                }
                Object::Filemark => blocks.push(Vec::new()),
                Object::EndOfData => return blocks,
            }
        }
    }
}

fn set_block_length(who: &Initiator, length: u16) {
    let [high, low] = length.to_be_bytes();
    let list = [0, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, high, low];
    who.good(&[0x15, 0x10, 0, 0, 12, 0], &list);
}

fn list_of(segments: Vec<Segment>, tape: DeviceParameters) -> ParameterList {
    let cscd = |index, peripheral_device_type, parameters| Cscd {
        relative_initiator_port: 0,
        designator: Designator {
            code_set: 1,
            association: 0,
            kind: 3,
            bytes: vec![0x30, 0, 0, 0, 0, 0, 0, index],
        },
        peripheral_device_type,
        pad: false,
        parameters,
    };
    let disk = DeviceParameters::Block { block_length: 512 };
    let cscds = vec![cscd(0, 0, disk), cscd(1, 1, tape), cscd(2, 0, disk)];
    ParameterList { list_id: 1, strict: false, usage: ListIdUsage::Hold, priority: 1, cscds, segments }
}

const REWIND: [u8; 6] = [1, 0, 0, 0, 0, 0];
const UNLOAD: [u8; 6] = [0x1B, 0, 0, 0, 0, 0];
const LOAD: [u8; 6] = [0x1B, 0, 0, 0, 1, 0];
const FOREIGN: [u8; 8] = *b"foreign!";
const WRITE_FOREIGN: [u8; 6] = [WRITE_6, 0, 0, 0, 8, 0];

fn space(count: i8) -> [u8; 6] {
    [0x11, 0, if count < 0 { 0xFF } else { 0 }, if count < 0 { 0xFF } else { 0 }, count as u8, 0]
}

/// What the other initiator does with the drive when `written` objects of the copy are on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visits {
    OtherBlockLength,
    Unload,
    UnloadAndLoad,
    Load,
    Reset,
    ClearTaskSet,
    Rewind,
    OneBack,
    OneBackAndForth,
    Write,
    Filemark,
    Overwrite,
    Erase,
    Reserve,
}

use Visits::*;

impl Visits {
    const ALL: [Self; 14] = [
        OtherBlockLength,
        Unload,
        UnloadAndLoad,
        Load,
        Reset,
        ClearTaskSet,
        Rewind,
        OneBack,
        OneBackAndForth,
        Write,
        Filemark,
        Overwrite,
        Erase,
        Reserve,
    ];

    fn visit(self, other: &Initiator, written: usize) {
        match self {
            OtherBlockLength => set_block_length(other, 256),
            Unload => other.good(&UNLOAD, &[]),
            UnloadAndLoad => [UNLOAD, LOAD].iter().for_each(|cdb| other.good(cdb, &[])),
            Load => other.good(&LOAD, &[]),
            Reset => other.manage(Function::LogicalUnitReset),
            ClearTaskSet => other.manage(Function::ClearTaskSet),
            Rewind => other.good(&REWIND, &[]),
            OneBack => other.good(&space(-1), &[]),
            OneBackAndForth => [-1, 1].iter().for_each(|count| other.good(&space(*count), &[])),
            Write => other.good(&WRITE_FOREIGN, &FOREIGN),
            Filemark => other.good(&[0x10, 0, 0, 0, 1, 0], &[]),
            // Afterwards the position is where it was, behind as many objects as before.
            Overwrite => {
                other.good(&REWIND, &[]);
                (0..written).for_each(|_| other.good(&WRITE_FOREIGN, &FOREIGN));
            }
            Erase => {
                other.good(&REWIND, &[]);
                other.good(&[0x19, 1, 0, 0, 0, 0], &[]);
            }
            Reserve => other.good(&[0x16, 0, 0, 0, 0, 0], &[]),
        }
    }

    /// The drive's answer to the copy's next command, unless it is GOOD: status, key and code.
    fn answer(self, under_way: bool) -> Option<(u8, u8, u16)> {
        match self {
            OtherBlockLength => Some((2, 6, 0x2A01)),
            Unload => Some((2, 2, 0x3A00)),
            UnloadAndLoad => Some((2, 6, 0x2800)),
            Reset => Some((2, 6, 0x2903)),
            // Between two commands there is no task to clear.
            ClearTaskSet => under_way.then_some((2, 6, 0x2F00)),
            Load | Rewind | OneBack | Write | Filemark | Overwrite | Erase => Some((2, 0xB, 0x3B00)),
            OneBackAndForth => None,
            Reserve => Some((0x18, 0, 0)),
        }
    }
}

/// The end of a copy, and the contents of the tape.
#[derive(Debug, PartialEq)]
struct End {
    status: Status,
    /// ASC and ASCQ of a COPY ABORTED in segment 0 that points at the drive's descriptor.
    aborted: Option<u16>,
    /// Status, key and code in the drive's answer.
    answered: Option<(u8, u8, u16)>,
    residual: Option<i64>,
    /// TRANSFER COUNT.
    count: u64,
    /// How many blocks on the tape are the copy's, in order from its beginning, and how many others are behind them.
    tape: (usize, usize),
}

impl End {
    fn of(outcome: &Outcome, count: u64, shared: &Shared, block: usize) -> Self {
        let sense = Received::parse(&outcome.sense);
        let aborted = sense.as_ref().filter(|sense| {
            (sense.key, sense.segment, sense.key_specific) == (0x0A, Some(0), Some([0x80, 0, 0x30]))
        });
        let answered = sense.as_ref().and_then(|sense| sense.destination.as_ref()).map(|(status, sense)| {
            let sense = Received::parse(sense).unwrap_or_default();
            (*status, sense.key, sense.asc)
        });
        let (aborted, residual) =
            (aborted.map(|sense| sense.asc), sense.as_ref().and_then(|sense| sense.information));
        let blocks = shared.blocks();
        let ours =
            blocks.iter().zip(shared.image.chunks(block)).take_while(|(found, ours)| *found == ours).count();
        Self { status: outcome.status, aborted, answered, residual, count, tape: (ours, blocks.len() - ours) }
    }
}

/// Runs a copy that meets `visits` at its WRITE `at`: at the door or, if `under_way`, when that WRITE has passed the
/// gate. Returns the actual end and the expected end.
fn meet(visits: Visits, fixed: bool, at: usize, under_way: bool) -> (End, End) {
    let shared = Shared::new();
    if fixed {
        set_block_length(&shared.other, 512);
    }
    let (block, each) = if fixed { (512, RECORD / 512) } else { (RECORD, 1) };
    let other = shared.other.clone();
    let visit = Box::new(move || visits.visit(&other, at * each));
    match under_way {
        true => shared.workers.0.come_at(at, visit),
        false => shared.tape_door.come_at(at, visit),
    }
    let outcome = shared.run(&shared.list(fixed));
    let found = End::of(&outcome, shared.count(), &shared, block);
    let answered = visits.answer(under_way);
    // A reservation concerns only commands that come to the gate after it.
    let passed = under_way && visits == Reserve;
    let written = if answered.is_some() { at + usize::from(passed) } else { RECORDS };
    let unit = if fixed { 512 } else { 1 };
    let residual = (answered.is_some() && written > 0).then(|| ((RECORDS - written) * RECORD / unit) as i64);
    let others = match visits {
        Write | Filemark => 1,
        Overwrite => at * each,
        _ => 0,
    };
    let ours = if matches!(visits, Overwrite | Erase) { 0 } else { written * each };
    let expected = End {
        status: if answered.is_some() { Status::CheckCondition } else { Status::Good },
        aborted: answered.map(|_| 0x0D01),
        answered,
        residual,
        count: (written * RECORD) as u64,
        tape: (ours, others),
    };
    (found, expected)
}

/// Runs a copy for each visit and each of these moments, and names every copy with a wrong end.
fn meet_all(moments: &[(bool, usize, bool)]) {
    let mut wrong = Vec::new();
    for visits in Visits::ALL {
        for (fixed, at, under_way) in moments {
            let (found, expected) = meet(visits, *fixed, *at, *under_way);
            if found != expected {
                let mode = if *fixed { "fixed" } else { "variable" };
                wrong.push(format!(
                    "{visits:?} at WRITE {at}, {mode}:\n  {found:?}\n  instead of\n  {expected:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_command_of_another_between_two_records_ends_the_copy_there() {
    meet_all(&[(false, 3, false), (true, 3, false), (false, RECORDS - 1, false), (true, 1, false)]);
}

/// A WRITE in fixed-block mode always waits for a thread that may sleep, so a visitor can meet it on its way.
#[test]
fn a_record_that_is_under_way_does_not_go_to_where_somebody_has_moved() {
    meet_all(&[(true, 3, true), (true, 1, true), (true, RECORDS - 2, true)]);
}

/// A reset cannot undo a record that is being written: the record counts, and the next one is not sent.
#[test]
fn a_record_that_was_written_when_its_task_was_aborted_counts() {
    for function in [Function::LogicalUnitReset, Function::ClearTaskSet] {
        let shared = Shared::new();
        let (other, inside) = (shared.other.clone(), Arc::clone(&shared.in_the_write));
        let visit = Box::new(move || {
            inside.come_at(0, Box::new(move || other.manage(function)));
        });
        shared.tape_door.come_at(3, visit);
        let outcome = shared.run(&shared.list(false));
        let code = if function == Function::LogicalUnitReset { 0x2903 } else { 0x2F00 };
        let expected = End {
            status: Status::CheckCondition,
            aborted: Some(0x0D01),
            answered: Some((2, 6, code)),
            residual: Some((8 * RECORD) as i64),
            count: 4 * RECORD as u64,
            tape: (4, 0),
        };
        assert_eq!(End::of(&outcome, shared.count(), &shared, RECORD), expected, "{function:?}");
    }
}

#[test]
fn an_attention_pending_for_the_initiator_stays_pending_and_does_not_disturb_its_copy() {
    let shared = Shared::new();
    for unit in [&shared.tape, &shared.disks[0]] {
        unit.attention(Asc::MODE_PARAMETERS_CHANGED, None);
    }
    assert_eq!(shared.run(&shared.list(false)).status, Status::Good);
    for host in &shared.hosts[..2] {
        assert_eq!(host.send(&[0; 6], &[]).sense[12..14], [0x2A, 0x01]);
    }
}

#[test]
fn a_drive_that_a_list_names_twice_is_one_drive() {
    let shared = Shared::new();
    let variable = DeviceParameters::VariableStream;
    let record = |destination, lba| Segment {
        destination: CscdId(destination),
        ..to_tape(false, RECORD as u32, (RECORD / 512) as u16, lba)
    };
    let segments = (0..RECORDS).map(|at| record(1 + at as u16 % 2 * 2, (at * RECORD / 512) as u64));
    let mut list = list_of(segments.collect(), variable);
    list.cscds.push(list.cscds[1].clone());
    assert_eq!(shared.run(&list).status, Status::Good);
    assert_eq!(shared.blocks().concat(), shared.image);
}

/// Four segments of one RECORD each, from the first disk to the second; `visit` comes at the third.
fn disk_copy(visit: impl FnOnce(&Shared) -> Visit) -> (Shared, Received, u64) {
    let shared = Shared::new();
    let blocks = (RECORD / 512) as u16;
    let segments = (0..4).map(|at| {
        let lba = u64::from(blocks) * at;
        Segment { destination: CscdId(2), ..to_disk(false, blocks, lba, lba) }
    });
    shared.disk_door.come_at(2, visit(&shared));
    let outcome = shared.run(&list_of(segments.collect(), DeviceParameters::VariableStream));
    assert_eq!(outcome.status, Status::CheckCondition);
    let count = shared.count();
    let mut written = vec![0; RECORD * RECORDS];
    shared.media[1].0.read(0, &mut written, Patience::Wait).unwrap();
    assert!(written[..count as usize] == shared.image[..count as usize]);
    assert!(written[count as usize..].iter().all(|byte| *byte == 0), "nothing behind what counts");
    (shared, Received::parse(&outcome.sense).unwrap(), count)
}

fn answered(forwarded: Option<(u8, Vec<u8>)>) -> (u8, u16) {
    let sense = forwarded.and_then(|(_, sense)| Received::parse(&sense)).unwrap();
    (sense.key, sense.asc)
}

#[test]
fn a_disk_that_changes_under_a_copy_ends_it_there() {
    const SOFTWARE_WRITE_PROTECT: [u8; 16] = [0, 0, 0, 0, 0x0A, 0x0A, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
    type Change = fn(&Shared) -> Visit;
    let changes: [(Change, u16); 3] = [
        (
            |shared| {
                let other = shared.other_disk.clone();
                Box::new(move || other.good(&[0x15, 0x10, 0, 0, 16, 0], &SOFTWARE_WRITE_PROTECT))
            },
            0x2A01,
        ),
        (
            |shared| {
                let unit = Arc::clone(&shared.disks[1]);
                Box::new(move || unit.attention(Asc::CAPACITY_DATA_HAS_CHANGED, None))
            },
            0x2A09,
        ),
        (
            |shared| {
                let other = shared.other_disk.clone();
                Box::new(move || other.manage(Function::LogicalUnitReset))
            },
            0x2903,
        ),
    ];
    for (change, code) in changes {
        let (_, sense, count) = disk_copy(change);
        assert_eq!((sense.asc, sense.segment, sense.information), (0x0D01, Some(2), None));
        assert_eq!((sense.key_specific, sense.source.is_none()), (Some([0x80, 0, 0x50]), true));
        assert_eq!((answered(sense.destination), count), ((6, code), 2 * RECORD as u64));
    }
}

#[test]
fn a_source_that_was_reset_ends_the_copy_in_the_segment_that_reads_it() {
    let (_, sense, count) = disk_copy(|shared| {
        let unit = Arc::clone(&shared.disks[0]);
        Box::new(move || unit.attention(Asc::BUS_DEVICE_RESET_FUNCTION_OCCURRED, None))
    });
    assert_eq!((sense.asc, sense.segment, sense.information), (0x0D01, Some(3), None));
    assert_eq!((sense.key_specific, sense.destination.is_none()), (Some([0x80, 0, 0x10]), true));
    assert_eq!((answered(sense.source), count), ((6, 0x2903), 3 * RECORD as u64));
}
