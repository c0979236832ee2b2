//! Whether a volume has a pool of before-images.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::origin::Origin;

/// The pool of a volume.
#[derive(Default)]
pub(super) enum Pool {
    /// It has none.
    #[default]
    None,
    /// It runs.
    Runs(Arc<Origin>),
}

/// The pool of a volume that has none.
pub(super) fn no_pool() -> Mutex<Pool> {
    Mutex::new(Pool::None)
}
