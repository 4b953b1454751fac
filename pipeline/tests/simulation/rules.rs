//! The rules of the protocol, each with a switch.

/// A rule of the loader's protocol. With all of them on nothing is lost or
/// doubled; with any one of them off the simulation finds a history that shows
/// what the rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The fate of a Pending is not asked for before its lease has run out.
    Lease,
    /// Where the target has only a search index, its delay is waited for too.
    IndexDelay,
    /// A request leaves only while its Pending is younger than half the lease.
    HalfLeaseCheck,
    /// Pending is durable before a request is sent.
    PendingBeforeApply,
    /// The transaction of the Pending sends the batch's start offsets, so that
    /// Kafka refuses it from a worker that has lost its partitions.
    StartOffsetsInPending,
    /// Offsets go with the group metadata captured when the batch began.
    BatchStartGeneration,
    /// Outcomes and offsets are one transaction.
    OffsetsInTheTransaction,
    /// The tables are restored up to the high watermark, not only up to the
    /// last stable offset.
    RestoreToHighWatermark,
    /// A child whose parent arrived between the judgement and the moment the
    /// parked record was durable is let go at once.
    LookAgain,
    /// Restored parked records are looked at after each assignment.
    LookAgainOnAssignment,
    /// A batch sends only the newest version of a key.
    NewestPerKey,
    /// A version older than the parked one of its key is dropped.
    ParkedIsNewer,
    /// The source's version is the first part of an order.
    SourceVersionFirst,
    /// An ordered target refuses an older version.
    OrderGuard,
    /// When partitions are lost, the tail goes back behind our last commit.
    TailSeeksBackOnLoss,
    /// From the loss of partitions until the tail stands behind our last commit
    /// nothing of them is told: a tail that was behind would put an old entry
    /// over our newer one, and then jump over the newer one.
    SeekBeforeTelling,
    /// What is committed is in memory before the producer is free for another
    /// lane; and a commit whose answer comes after its partitions were lost
    /// does not touch memory at all: the tail tells it.
    MemoryOnlyWhileOwned,
    /// What is released is taken only by the owner of its partition.
    ReleasedOnlyWhileOwned,
    /// The timer of a lease does not release what waits for a link by now: sent
    /// again without it, it could stay Pending with nobody to ask for its fate.
    ReleasedForItsReason,
    /// Positions are not committed past a batch that a lane dropped.
    BlockedHoldsPositions,
    /// A rejected record does not make us forget what recovery has found, nor
    /// believe that what stood before is still what the target has.
    RejectKeepsFound,
    /// A version sent with a link is newer to an ordered target than the same
    /// version sent without it, which a dead owner may have done.
    LinksAreInTheOrder,
    /// A record that is seen again unchanged goes on waiting for its link.
    UnchangedKeepsLink,
    /// The dead letter of an older version does not replace a newer one's.
    NewestDeadLetter,
    /// Where no Pending is written, nothing is skipped because of what the
    /// table says alone: a dead owner may have sent something in between.
    NoShortcutWithoutPending,
    /// A dead letter whose parent came before the letter was told is tried again
    /// when it is told.
    OrphanWhoseParentCame,
    /// Dead letters whose parent has come are tried again after an assignment.
    OrphansOnAssignment,
    /// Redo records are tried again after each assignment.
    RedoOnAssignment,
    /// It is searched for records that wait in vain: nothing else would wake them.
    SearchInVain,
    /// Of dead letters, memory is what is newest by offset: the tail does not
    /// bring back one that our own commit took back, nor does a commit that is
    /// remembered late bring back one that the tail has told to be gone.
    LettersAsCommitted,
}

impl Rule {
    /// Every rule: the absence of each is noticed within the histories that are
    /// searched.
    pub const ALL: [Rule; 30] = [
        Rule::Lease,
        Rule::IndexDelay,
        Rule::HalfLeaseCheck,
        Rule::PendingBeforeApply,
        Rule::StartOffsetsInPending,
        Rule::BatchStartGeneration,
        Rule::OffsetsInTheTransaction,
        Rule::RestoreToHighWatermark,
        Rule::LookAgain,
        Rule::LookAgainOnAssignment,
        Rule::NewestPerKey,
        Rule::ParkedIsNewer,
        Rule::SourceVersionFirst,
        Rule::OrderGuard,
        Rule::TailSeeksBackOnLoss,
        Rule::SeekBeforeTelling,
        Rule::MemoryOnlyWhileOwned,
        Rule::ReleasedOnlyWhileOwned,
        Rule::ReleasedForItsReason,
        Rule::BlockedHoldsPositions,
        Rule::RejectKeepsFound,
        Rule::LinksAreInTheOrder,
        Rule::UnchangedKeepsLink,
        Rule::NewestDeadLetter,
        Rule::NoShortcutWithoutPending,
        Rule::OrphanWhoseParentCame,
        Rule::OrphansOnAssignment,
        Rule::RedoOnAssignment,
        Rule::SearchInVain,
        Rule::LettersAsCommitted,
    ];
}

/// Which rules hold.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    off: u64,
}

impl Rules {
    /// All of them.
    pub const ON: Rules = Rules { off: 0 };

    /// All but one.
    pub fn without(rule: Rule) -> Self {
        Rules {
            off: 1 << rule as u64,
        }
    }

    /// Whether a rule holds.
    pub fn has(self, rule: Rule) -> bool {
        self.off & (1 << rule as u64) == 0
    }
}
