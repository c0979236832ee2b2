//! The catalog's file when the power is cut at any step.

use super::data_dir::Step;
use super::*;

/// What the power cut may take: everything that was not synced.
#[derive(Debug, Default)]
pub(super) struct AtRisk {
    /// The name of a file whose contents are not durable.
    torn: Option<&'static str>,
    /// What the catalog's name led to when it was durable last.
    former: Option<Vec<u8>>,
}

impl AtRisk {
    /// Whether a power cut takes anything.
    pub(super) fn is_any(&self) -> bool {
        self.torn.is_some() || self.former.is_some()
    }

    /// Takes it from the files in `data`; the catalog's name only if that `loses_names`.
    pub(super) fn strike(&self, data: &Path, loses_names: bool) {
        if let Some(name) = self.torn {
            let bytes = std::fs::read(data.join(name)).unwrap();
            std::fs::write(data.join(name), &bytes[..bytes.len() / 2]).unwrap();
        }
        if let Some(former) = self.former.as_ref().filter(|_| loses_names) {
            std::fs::write(data.join("catalog.json"), former).unwrap();
        }
    }
}

/// What comes at the steps of a catalog's file.
pub(super) trait Meets: Send + Sync {
    /// Comes before `step` is done, when a power cut would take what is `at_risk`. After an error the step is not done.
    fn meet(&self, step: Step, at_risk: &AtRisk) -> std::io::Result<()>;

    /// Whether nothing can be read any more.
    fn is_off(&self) -> bool {
        false
    }
}

/// A catalog's file whose steps meet something.
pub(super) struct Stepped<M> {
    file: CatalogFile,
    directory: PathBuf,
    at_risk: Arc<Mutex<AtRisk>>,
    meets: M,
}

impl<M: Meets> Stepped<M> {
    pub(super) fn new(dir: &DataDir, meets: M) -> Self {
        Self { file: dir.catalog(), directory: dir.path().to_owned(), at_risk: Arc::default(), meets }
    }

    /// What a power cut would take now.
    pub(super) fn at_risk(&self) -> Arc<Mutex<AtRisk>> {
        Arc::clone(&self.at_risk)
    }

    fn step(&self, step: Step) -> std::io::Result<()> {
        let mut at_risk = self.at_risk.lock();
        self.meets.meet(step, &at_risk)?;
        match step {
            Step::Write => at_risk.torn = Some("catalog.json.new"),
            Step::Sync => at_risk.torn = None,
            Step::Rename => {
                at_risk.torn = at_risk.torn.map(|_| "catalog.json");
                at_risk.former = Some(std::fs::read(self.directory.join("catalog.json")).unwrap());
            }
            Step::SyncDirectory => at_risk.former = None,
        }
        Ok(())
    }
}

impl<M> fmt::Debug for Stepped<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stepped").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<M: Meets> Blob for Stepped<M> {
    fn load(&self) -> std::io::Result<Option<Vec<u8>>> {
        match self.meets.is_off() {
            true => Err(std::io::Error::other("the power is off")),
            false => self.file.load(),
        }
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.replace_in_steps(bytes, |step| self.step(step))
    }
}

/// A machine that is cut off after so many steps: from then on nothing is done any more.
struct Cut {
    left: AtomicU64,
    is_off: AtomicBool,
}

impl Meets for Arc<Cut> {
    fn meet(&self, _: Step, _: &AtRisk) -> std::io::Result<()> {
        let one_less = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_err() {
            self.is_off.store(true, Ordering::SeqCst);
            return Err(std::io::Error::other("the power is off"));
        }
        Ok(())
    }

    fn is_off(&self) -> bool {
        self.is_off.load(Ordering::SeqCst)
    }
}

/// Verbs with one change of the catalog and with several.
fn verbs() -> [fn(&Array) -> Result<(), ArrayError>; 5] {
    [
        |array| array.create_target(&target()).map(drop),
        |array| volume(array, "a", 1 << 20, StoreKind::File).map(drop),
        |array| {
            let (object, target) = (object_name("a"), target());
            array
                .map_lun(lun::Map { object, target, lun: 0, initiators: Default::default(), read_only: true })
                .map(drop)
        },
        |array| array.unmap_lun(&unmap(0, None)).map(drop),
        |array| array.delete_volume(&name("a")).map(drop),
    ]
}

/// Which volumes, targets and LUNs there are.
type Objects = (Vec<(String, Health)>, Vec<String>, Vec<u16>);

fn objects(array: &Array) -> Objects {
    let volumes = array.volumes().into_iter().map(|volume| (volume.name, volume.health));
    let targets = array.targets().into_iter().map(|target| target.iqn);
    (volumes.collect(), targets.collect(), array.luns().into_iter().map(|lun| lun.lun).collect())
}

/// Runs the verbs until the power is cut after `steps`. What there was at first, and after each verb that was answered; and
/// how many steps were left.
fn run(data: &Path, steps: u64, loses_names: bool) -> (Vec<Objects>, u64) {
    let array = open(data);
    let cut = Arc::new(Cut { left: AtomicU64::new(steps), is_off: AtomicBool::new(false) });
    let stepped = Stepped::new(&array.dir, Arc::clone(&cut));
    let at_risk = stepped.at_risk();
    rests_in(&array, stepped);
    let mut after = vec![objects(&array)];
    for verb in verbs() {
        if verb(&array).is_err() {
            break;
        }
        after.push(objects(&array));
    }
    drop(array);
    at_risk.lock().strike(data, loses_names);
    (after, cut.left.load(Ordering::SeqCst))
}

#[test]
fn a_power_cut_at_any_step_of_the_catalog_s_file_leaves_a_verb_done_or_not_begun() {
    const ENOUGH: u64 = 1000;
    let temporary = tempfile::tempdir().unwrap();
    let (whole, left) = run(temporary.path(), ENOUGH, false);
    assert_eq!((whole.len(), ENOUGH - left), (verbs().len() + 1, 7 * 4), "seven changes of four steps");
    for steps in 0..ENOUGH - left {
        for loses_names in [false, true] {
            let temporary = tempfile::tempdir().unwrap();
            let (after, _) = run(temporary.path(), steps, loses_names);
            assert_eq!(after, whole[..after.len()], "{steps} steps");
            let array = open(temporary.path());
            let found = objects(&array);
            let possible = &whole[after.len() - 1..whole.len().min(after.len() + 1)];
            assert!(
                possible.contains(&found),
                "{steps} steps, {loses_names}: {found:?} is not in {possible:?}"
            );
            assert_eq!(array.turn().catalog.scrap, BTreeSet::new(), "{steps} steps");
            let files = temporary.path().join("volumes/a");
            assert_eq!(files.exists(), !found.0.is_empty(), "{steps} steps, {loses_names}");
        }
    }
}
