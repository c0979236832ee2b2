//! Stands for the room of origins until it is there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::landing::{Keeper, LandedVolume};
use crate::store::{Store, StoreError};
use crate::volume::Block;

pub(crate) type OriginError = StoreError;

pub(crate) struct PoolStores {
    pub(crate) table: Arc<dyn Store>,
    pub(crate) slots: Arc<dyn Store>,
}

#[derive(Debug)]
pub(crate) struct Origin;

impl Keeper for Origin {
    fn keep(&self, _: &[Range<u64>]) -> Result<(), StoreError> {
        Err(StoreError::Stopped)
    }
    fn lost(&self, _: &StoreError) {}
}

pub(crate) struct Swept {
    pub(crate) done: bool,
}

#[derive(Default)]
pub(crate) struct PoolStatus {
    pub(crate) bytes: u64,
}

impl Origin {
    pub(crate) fn create(
        _: Arc<LandedVolume>,
        stores: PoolStores,
        _: [u8; 16],
        _: u64,
    ) -> Result<Arc<Self>, OriginError> {
        let PoolStores { table, slots } = stores;
        drop((table, slots));
        Err(StoreError::Corrupt("not yet".to_owned()))
    }
    pub(crate) fn open(
        _: Arc<LandedVolume>,
        _: PoolStores,
        _: [u8; 16],
        _: &[u64],
        _: u64,
    ) -> Result<Arc<Self>, OriginError> {
        Err(StoreError::Corrupt("not yet".to_owned()))
    }
    pub(crate) fn prepare(&self) -> Result<(), OriginError> {
        Ok(())
    }
    pub(crate) fn take_all(_: &[(Arc<Self>, u64)]) -> Result<Duration, (usize, OriginError)> {
        Ok(Duration::ZERO)
    }
    pub(crate) fn forget(&self, _: u64) {}
    pub(crate) fn image(&self, _: u64) -> Result<Arc<dyn Block>, OriginError> {
        Err(StoreError::Corrupt("not yet".to_owned()))
    }
    pub(crate) fn sweep(&self, _: u64) -> Result<Swept, OriginError> {
        Ok(Swept { done: true })
    }
    pub(crate) fn status(&self) -> PoolStatus {
        PoolStatus::default()
    }
    pub(crate) fn changed(&self, _: u64, _: Option<u64>, _: u64) -> Result<Option<Range<u64>>, OriginError> {
        Ok(None)
    }
    pub(crate) fn broken(&self) -> Option<(u64, String)> {
        None
    }
}
