//! `cleave xcopy`.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Way, counted, print};
use crate::initiator::url::Place;
use crate::initiator::xcopy::{Done, Job, Order, prepare, run as copy};
use crate::initiator::{InitiatorError, Transport};
use crate::units::Size;

/// Options of `xcopy`.
#[derive(Debug, Args)]
pub struct Xcopy {
    /// The disk to copy from: iscsi://HOST[:PORT]/IQN/LUN, or a device node.
    #[arg(value_name = "SRC")]
    source: Place,
    /// The tape or disk to copy to, mapped to this initiator on the same target.
    #[arg(value_name = "DST")]
    destination: Place,
    /// First source block.
    #[arg(long, value_name = "N", default_value_t = 0)]
    lba: u64,
    /// Source blocks to copy. [default: to the end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    blocks: Option<u64>,
    /// First destination block, on a disk.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seek: u64,
    /// Length of a tape record; the last one is as short as it comes.
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = parse_record)]
    tape_block: u32,
    /// Filemarks to write behind the last record.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=0xFF_FFFF))]
    filemarks: u32,
    /// LIST IDENTIFIER of the commands.
    #[arg(long, value_name = "N", default_value_t = 1)]
    list_id: u8,
    /// PRIORITY of the commands, 0 (highest) to 7.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=7))]
    priority: u8,
    /// Source blocks of one segment, at most. [default: as many as the array takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    segment_blocks: Option<u16>,
    /// Only say what would be sent.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    way: Way,
}

/// A record length: 1 byte to the 24 bits of the command.
pub(super) fn parse_record(text: &str) -> Result<u32, String> {
    let Size(size) = text.parse()?;
    u32::try_from(size)
        .ok()
        .filter(|size| (1..=0xFF_FFFF).contains(size))
        .ok_or_else(|| format!("'{text}' is no record length: a tape record has 1 to {} bytes", 0xFF_FFFF))
}

#[derive(Serialize)]
struct Planned {
    bytes: u64,
    commands: usize,
    segments: usize,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    seconds: f64,
    commands: usize,
    segments: usize,
    network_bytes: Option<u64>,
    network_sent: Option<u64>,
    network_received: Option<u64>,
    source: String,
    destination: String,
}

pub(super) fn run(options: &Xcopy, json: bool) -> Result<(), InitiatorError> {
    let mut initiator = options.way.initiator();
    let source: Arc<dyn Transport> = Arc::from(initiator.open(&options.source)?);
    let destination = initiator.open(&options.destination)?;
    let order = Order {
        lba: options.lba,
        blocks: options.blocks,
        seek: options.seek,
        tape_block: options.tape_block,
        filemarks: options.filemarks,
        list_id: options.list_id,
        priority: options.priority,
        segment_blocks: options.segment_blocks,
    };
    let job = prepare(&*source, &*destination, &order)?;
    if options.dry_run {
        tell_plan(&job, json);
        return Ok(());
    }
    let bar = ProgressBar::new(job.bytes);
    if let Ok(style) = ProgressStyle::with_template(
        // within 80 columns, or each redraw would leave a line behind
        "{bar:20} {percent} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left",
    ) {
        bar.set_style(style);
    }
    abort_on_interrupt(&source);
    let written = Mutex::new(0);
    let done = copy(&*source, &job, &|bytes| {
        bar.set_position(bytes);
        *written.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = bytes;
    });
    bar.finish_and_clear();
    match done {
        Ok(done) => tell(options, &done, json),
        Err(InitiatorError::Aborted) => {
            let written = Size(*written.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            return Err(InitiatorError::Copy(format!(
                "the copy was aborted on request; about {written} had been written"
            )));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn tell_plan(job: &Job, json: bool) {
    let segments: usize = job.lists.iter().map(|(list, _)| list.segments.len()).sum();
    let planned = Planned { bytes: job.bytes, commands: job.lists.len(), segments };
    let text = format!(
        "would copy {} ({} bytes) by {} with {}",
        Size(job.bytes),
        job.bytes,
        counted(job.lists.len() as u64, "EXTENDED COPY command"),
        counted(segments as u64, "segment")
    );
    print(json, &planned, &text);
}

fn tell(options: &Xcopy, done: &Done, json: bool) {
    let seconds = done.elapsed.max(Duration::from_micros(1)).as_secs_f64();
    let report = Report {
        bytes: done.bytes,
        seconds,
        commands: done.commands,
        segments: done.segments,
        network_bytes: done.traffic.map(|(sent, received)| sent + received),
        network_sent: done.traffic.map(|(sent, _)| sent),
        network_received: done.traffic.map(|(_, received)| received),
        source: options.source.to_string(),
        destination: options.destination.to_string(),
    };
    #[allow(clippy::cast_precision_loss)] // shown to a person with one decimal
    let rate = done.bytes as f64 / seconds / 1e6;
    let network = match report.network_bytes {
        Some(bytes) => format!("; {bytes} bytes crossed the network"),
        None => String::new(),
    };
    let text = format!("copied {} bytes in {seconds:.2} s, {rate:.1} MB/s{network}", done.bytes);
    print(json, &report, &text);
}

/// From now on Ctrl-C aborts the commands under way instead of ending this program over them.
fn abort_on_interrupt(transport: &Arc<dyn Transport>) {
    let transport: Weak<dyn Transport> = Arc::downgrade(transport);
    let wait = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            let Some(transport) = transport.upgrade() else { return };
            if let Err(error) = transport.abort() {
                eprintln!("cleave: {error}");
            }
        }
    };
    // Without the thread Ctrl-C ends this program, and with it the session and the copy.
    let _ = thread::Builder::new().name("interrupt".into()).spawn(wait);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lengths_fit_the_command() {
        assert_eq!(parse_record("256KiB"), Ok(262_144));
        assert_eq!(parse_record("16777215"), Ok(16_777_215));
        for bad in ["0", "16MiB", "x"] {
            assert!(parse_record(bad).is_err(), "{bad}");
        }
    }
}
