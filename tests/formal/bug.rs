//! Bugs that are planted into the scripts, each to be found by the invariant that it breaks.

use crate::truth::Invariant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// What is in the bucket is released, whatever its record says: a keep-alive since then is forgotten.
    SweepTrustsTheEntry,
    /// One call lists what is due, a later one releases it: by then it may be somebody else's.
    SweepInTwoCalls,
    /// An entry that comes up before its deadline is not put back.
    SweepDropsWhatIsNotDue,
    /// A deadline that moves earlier leaves its entry where it was.
    EarlierDeadlineKeepsItsEntry,
    /// A delete takes the token out of the free set alone.
    DeleteLeavesTheRecord,
    /// A delete leaves the wheel's entry, and a sweep makes a free token of it.
    StaleEntryBringsItsTokenBack,
    UnblockIgnoresTheFence,
    /// The counter is the pool's: made again, it begins again.
    FenceGoesWithItsPool,
    /// What is in the free set is granted, although it was idle for too long.
    AssignDoesNotSettle,
    RetryIsGrantedAnew,
    /// Redis comes back empty, and fences begin again.
    FenceIgnoresTheClock,
}

impl Bug {
    pub const ALL: [(Self, Invariant); 11] = [
        (Self::SweepTrustsTheEntry, Invariant::NeverEarly),
        (Self::SweepInTwoCalls, Invariant::NeverEarly),
        (Self::SweepDropsWhatIsNotDue, Invariant::NotForgotten),
        (Self::EarlierDeadlineKeepsItsEntry, Invariant::NotForgotten),
        (Self::DeleteLeavesTheRecord, Invariant::DeletedStaysDeleted),
        (
            Self::StaleEntryBringsItsTokenBack,
            Invariant::DeletedStaysDeleted,
        ),
        (Self::UnblockIgnoresTheFence, Invariant::OnlyTheHolderLetsGo),
        (Self::FenceGoesWithItsPool, Invariant::NoFenceTwice),
        (Self::AssignDoesNotSettle, Invariant::DeletedStaysDeleted),
        (Self::RetryIsGrantedAnew, Invariant::OneGrantPerKey),
        (Self::FenceIgnoresTheClock, Invariant::NoFenceTwice),
    ];
}
