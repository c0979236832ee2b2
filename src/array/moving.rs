//! Export and import: a cartridge to a SIMH `.tap` file, and back.
//!
//! Both last. The cartridge is away from the shelf meanwhile, and its [`Moving`] tells how far they are.
//!
//! **An image has its name when it is whole.** An export writes `FILE.part`, syncs it, and renames it only then, so that
//! what an interrupted one leaves is not taken for a tape: an image without its end marker is an image, too.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::data_dir::sync_dir;
use super::names::Barcode;
use super::outside::outside;
use super::show::{self, Movement};
use super::tapes::Whereabouts;
use super::{Array, ArrayError, Kind};
use crate::tape::Cartridge;
use crate::tape::simh::{self, SimhError};

/// Bytes read or written at once.
const BUFFER: usize = 1 << 20;

/// An export or import under way.
#[derive(Debug)]
pub(super) struct Moving {
    verb: &'static str,
    done: AtomicU64,
    total: AtomicU64,
}

impl Moving {
    fn new(verb: &'static str) -> Arc<Self> {
        Arc::new(Self { verb, done: AtomicU64::new(0), total: AtomicU64::new(0) })
    }

    /// How far it is.
    #[allow(clippy::cast_precision_loss)] // shown to people
    pub(super) fn show(&self) -> Movement {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let progress = if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) };
        Movement { verb: self.verb.to_owned(), done_bytes: done, total_bytes: total, progress }
    }
}

impl Array {
    /// Writes a cartridge to a SIMH .tap file, which must not exist.
    pub fn export_cartridge(&self, barcode: &Barcode, file: &Path) -> Result<show::Moved, ArrayError> {
        let asked = format!("export cartridge {barcode} to {}", file.display());
        let file = &outside(&asked, self.data_dir(), file)?;
        if file.symlink_metadata().is_ok() {
            return Err(ArrayError::refused(asked, "there is a file of that name", "name another file"));
        }
        self.borrow_cartridge(&asked, barcode, &Moving::new("export"), |cartridge, progress| {
            let bytes = write_image(cartridge, file, progress).map_err(|error| failure(&asked, &error))?;
            Ok(moved(barcode, file, cartridge, bytes))
        })
    }

    /// Fills a blank cartridge from a SIMH .tap file.
    pub fn import_cartridge(&self, barcode: &Barcode, file: &Path) -> Result<show::Moved, ArrayError> {
        let asked = format!("import {} into cartridge {barcode}", file.display());
        let image = open_image(&asked, file)?;
        let failed = |error: std::io::Error| ArrayError::io(asked.as_str(), file.display(), &error);
        let bytes = image.metadata().map_err(failed)?.len();
        let moving = Moving::new("import");
        moving.total.store(bytes, Ordering::Relaxed);
        self.borrow_cartridge(&asked, barcode, &moving, |cartridge, progress| {
            let mut image = BufReader::with_capacity(BUFFER, image);
            if let Err(error) = simh::import(&mut image, cartridge, progress) {
                if !matches!(error, SimhError::NotBlank) {
                    cartridge.rewind();
                    if let Err(error) = cartridge.erase().and_then(|()| cartridge.sync()) {
                        tracing::error!(%barcode, %error, "a part of the failed import stays on the cartridge");
                    }
                }
                return Err(failure(&asked, &error));
            }
            Ok(moved(barcode, file, cartridge, bytes))
        })
    }

    /// Does `work` with a cartridge taken from the shelf. It is to stop when the array does.
    fn borrow_cartridge<T>(
        &self,
        asked: &str,
        barcode: &Barcode,
        moving: &Arc<Moving>,
        work: impl FnOnce(&mut Cartridge, &mut dyn FnMut(u64) -> bool) -> Result<T, ArrayError>,
    ) -> Result<T, ArrayError> {
        let mut cartridge =
            self.control.lock().take(asked, barcode, Whereabouts::Busy(Arc::clone(moving)))?;
        let _ = moving.total.compare_exchange(0, cartridge.used(), Ordering::Relaxed, Ordering::Relaxed);
        let result = work(&mut cartridge, &mut |done| {
            moving.done.store(done, Ordering::Relaxed);
            !self.stopping.load(Ordering::Acquire)
        });
        self.control.lock().cartridges.insert(barcode.clone(), Whereabouts::Shelf(cartridge));
        result
    }

    /// Waits until no export or import is under way, at most until `deadline`. True if that came about.
    pub(super) fn drain_borrowers(&self, deadline: Instant) -> bool {
        let busy = |place: &Whereabouts| matches!(place, Whereabouts::Busy(_));
        while self.control.lock().cartridges.values().any(busy) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// Opens a file that has an end: a pipe or a device would keep the cartridge for ever.
fn open_image(asked: &str, file: &Path) -> Result<File, ArrayError> {
    if !file.is_absolute() {
        let why = "the daemon does not run in your directory, so it needs an absolute path";
        return Err(ArrayError::usage(asked, why, "name the whole path"));
    }
    let failed = |error: std::io::Error| ArrayError::io(asked, file.display(), &error);
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let image = OpenOptions::new().read(true).custom_flags(at_once).open(file).map_err(failed)?;
    if !image.metadata().map_err(failed)?.is_file() {
        return Err(ArrayError::usage(asked, "it is not a regular file", "name a SIMH .tap file"));
    }
    Ok(image)
}

/// Writes the whole cartridge to `file`, durably; how many bytes that are. After an error nothing is left.
fn write_image(
    cartridge: &mut Cartridge,
    file: &Path,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, SimhError> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let image = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
    let image = image.map_err(|error| {
        // An export that was killed left it, or it is somebody's: whose, only the operator knows.
        std::io::Error::new(error.kind(), format!("{}: {error}", part.display()))
    })?;
    let written = fill(cartridge, image, progress).and_then(|bytes| {
        rename_to_new(&part, file)?;
        Ok(bytes)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part); // made here
    }
    let bytes = written?;
    file.parent().map_or(Ok(()), sync_dir)?;
    Ok(bytes)
}

fn fill(
    cartridge: &mut Cartridge,
    image: File,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, SimhError> {
    let mut image = BufWriter::with_capacity(BUFFER, image);
    simh::export(cartridge, &mut image, progress)?;
    image.flush()?;
    let image = image.get_ref();
    image.sync_all()?;
    Ok(image.metadata()?.len())
}

/// Renames, and never over what somebody has put there meanwhile where the file system can tell.
fn rename_to_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => std::fs::rename(from, to),
        other => Ok(other?),
    }
}

fn moved(barcode: &Barcode, file: &Path, cartridge: &Cartridge, bytes: u64) -> show::Moved {
    let end = cartridge.end();
    show::Moved {
        barcode: barcode.to_string(),
        file: file.display().to_string(),
        blocks: end.object.saturating_sub(end.files),
        filemarks: end.files,
        bytes,
    }
}

fn failure(asked: &str, error: &SimhError) -> ArrayError {
    let remedy = match error {
        SimhError::NotBlank => {
            return ArrayError::refused(asked, error.to_string(), "see 'cleave cartridge create'");
        }
        SimhError::Io(_) => "look at the file and its file system",
        SimhError::Tape(_) => "use another cartridge",
        SimhError::Stopped => "the daemon is stopping: repeat when it serves again",
        _ => "name a SIMH .tap file that is whole",
    };
    ArrayError::new(Kind::Failed, asked, error.to_string(), remedy)
}
