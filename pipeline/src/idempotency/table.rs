//! Where a loader keeps what it knows of every key.

use super::{Entry, TargetId};
use crate::record::CanonicalKey;

/// The idempotency table of a loader: one [`Entry`] a canonical key, for every
/// key of the target, because references cross partitions.
///
/// It is a view of the compacted topic `idempotency.<target>` and nothing else:
/// what it holds may be thrown away and read again. [`super::PackedTable`] keeps
/// it in memory; an on-disk form can take over where memory can't hold it.
pub trait Table: Send {
    /// What is known of a key.
    fn get(&self, key: &CanonicalKey) -> Option<Entry>;

    /// What is known of some keys, in their order. A table in memory fetches
    /// what it needs for one while it waits for another's.
    fn get_all(&self, keys: &[&CanonicalKey]) -> Vec<Option<Entry>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// The target's id of a key, if it has one.
    fn target_id(&self, key: &CanonicalKey) -> Option<TargetId> {
        self.get(key)?.target_id
    }

    /// Sets what is known of a key.
    fn put(&mut self, key: &CanonicalKey, entry: &Entry);

    /// Forgets a key.
    fn remove(&mut self, key: &CanonicalKey);

    /// How many keys it knows.
    fn len(&self) -> usize;

    /// Whether it knows nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory that it has allocated, in bytes.
    fn memory(&self) -> usize;
}
