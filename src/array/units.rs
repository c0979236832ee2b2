//! How a logical unit is put together: device server, identity, threads.

use std::sync::Arc;

use super::workers::Threads;
use crate::lu::disk::Disk;
use crate::lu::tape::Drive;
use crate::lu::{DeviceServer, Executor, LogicalUnit};
use crate::volume::{Block, Identity, Switch};

/// The LU of a volume.
pub(super) fn disk(switch: &Arc<Switch>, identity: Identity, threads: &Arc<Threads>) -> Arc<LogicalUnit> {
    let server = Disk::new(Arc::clone(switch) as Arc<dyn Block>);
    LogicalUnit::new(identity, Arc::new(server), Arc::clone(threads) as Arc<dyn Executor>)
}

/// The LU of a drive.
pub(super) fn tape(drive: &Arc<Drive>, identity: Identity, threads: &Arc<Threads>) -> Arc<LogicalUnit> {
    let server = Arc::clone(drive) as Arc<dyn DeviceServer>;
    LogicalUnit::new(identity, server, Arc::clone(threads) as Arc<dyn Executor>)
}
