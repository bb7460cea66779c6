//! Runs of slots.

/// First and last of each run of slots that follow one another.
pub(super) fn ranges(slots: &[u16]) -> impl Iterator<Item = (u16, u16)> {
    slots.chunk_by(|slot, next| slot + 1 == *next).filter_map(|run| Some((*run.first()?, *run.last()?)))
}
