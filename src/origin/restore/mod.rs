//! Restoring a volume from one of its images: the volume shows the image at once, and the bytes follow.
//!
//! R is the set of extents that are still to be restored. At the beginning R has all extents in which the volume and the
//! image differ ([`changed`](super::Origin::changed)). A [`Restore`] stands above everything that the volume's hosts used
//! before, also above a side of a pair. A read of an extent in R is answered from the image, every other one from the
//! volume. An extent is restored by writing the image's bytes to the volume *as a host would*. So the younger images, a
//! pair and the landing log keep what they need by their own laws, and nothing here knows of them.
//!
//! 1. **The image does not change.** The owner lets nobody write to it, and nobody delete it, and makes it durable before the
//!    restore counts: a flush of the volume would not flush what hosts have written to the image before. The origin
//!    [gives nothing of it up](super::Origin::pin) for lack of room. Only a store that fails can break it.
//! 2. **Written, flushed, and only then out of R.** Of an extent that leaves R the volume has all bytes on stable storage.
//!    So after a power loss an extent is in R, or it is wholly restored; what a host has written after that and not
//!    flushed is as volatile as anywhere. The record of R loses the extent in the page cache, which is enough for a kill.
//!    The host is answered after that.
//! 3. **A flush of the volume, and then one of the record.** Otherwise a power loss would bring an extent back into R that
//!    a host has overwritten and flushed. A write with FUA does the same, if the record has lost anything since its last flush.
//! 4. **No extent comes back into R.** So who finds an extent outside of R may use the volume without a second look. Who
//!    has found it in R and reads the image reads what the volume showed when the read began.
//! 5. **Who takes extents out of R has claimed them** ([`claims`]). A host's write to a part of an extent in R first
//!    restores the rest of the extent. A write or discard of whole extents reads nothing.
//!
//! **The beginning.** R has to be on stable storage before it counts, and hosts write meanwhile. So the restore begins by
//! *tracking*: each write notes its extents before it changes them. The changed extents are looked for, then what has been
//! noted is added and made durable, until little is left. Then it *closes in*: a write to an extent that is not in R yet
//! waits, all others go on. Now R is complete, and is made durable. The owner notes durably that the volume is being restored,
//! and then the restore *flips*: no write is under way, and from that moment on the volume shows the image. Writes that came
//! before are overwritten by the restore, as they should be. A crash before the owner's note leaves the volume as it was, a
//! crash after it finds the restore with a complete R. An extent that is in R and has not changed is restored in vain.
//!
//! **An error** of a store, or a broken image, stops nothing for good: the extents stay in R, where they are read from
//! the image or refused, and are never shown wrong. The owner tries again. If the record itself cannot be read, nobody
//! knows R: then everything is refused ([`Restore::lost`]).
//!
//! A restore has no thread and no clock. Locks, in the order in which they may be taken: the passage, the cursor, claims, the
//! record, R.

mod block;
mod claims;
mod flushes;
mod record;
mod run;
mod set;
#[cfg(test)]
mod tests;

pub(crate) use record::Subject;
pub(crate) use run::{Advance, Restore, RestoreStatus};
