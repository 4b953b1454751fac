//! A loader's process, in the steps of the real one (`pipeline/src/load`): the
//! thread that polls, the lanes, the tail, and what is in memory. Each function
//! of [`World`] here does one step of one of them; anything may happen between
//! two steps.

mod commit;
mod lane;
mod poller;
mod send;
mod settle;
mod tail;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use drover_pipeline::idempotency::{Entry, Incoming, State, Verdict, judge};
use drover_pipeline::orphan::{Sight, circle, never};
use drover_pipeline::record::{AbsentReason, CanonicalKey, Fingerprint, Order};

use crate::rules::Rule;
use crate::world::{
    CHILDREN, Canonical, Content, Event, Fate, IDEMPOTENCY, KEYS, Key, Kind, LEASE, LETTERS,
    Letter, Logged, MOST_PARTITIONS, Meta, Next, PARKED, REVOKE, Redone, Request, TABLES, Value,
    World,
};

/// The most messages of a batch.
const BATCH: usize = 4;

/// What became of a request, as the loader's trait says it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The target has it.
    Applied {
        /// The record's id there.
        id: Option<String>,
        /// Whether it has something newer instead.
        newer: bool,
    },
    /// The target refuses the record.
    Rejected,
    /// No answer.
    Unknown,
    /// Not sent.
    NotSent,
}

/// What a parked record waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A required parent.
    Parent(Key),
    /// An optional link.
    Link(Key),
    /// Nobody: its optional link never comes, as far as is known.
    Dropped(Key),
    /// The end of a lease.
    Lease,
}

impl Reason {
    /// The key whose arrival releases the record.
    pub fn parent(self) -> Option<Key> {
        match self {
            Reason::Parent(key) | Reason::Link(key) | Reason::Dropped(key) => Some(key),
            Reason::Lease => None,
        }
    }
}

/// A parked record.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// Why.
    pub reason: Reason,
    /// The order it keeps.
    pub order: Order,
    /// What it says.
    pub content: Content,
}

/// A record of a batch.
#[derive(Debug, Clone)]
struct Work {
    key: Key,
    order: Order,
    content: Content,
}

/// What is to be done about it.
#[derive(Debug)]
enum Plan {
    Drop,
    /// The entry, and whether it is the content that is known.
    Note(Entry, bool),
    Park(Reason, Option<u64>),
    /// The parent, and whether it is a circle.
    Orphan(Key, bool),
    Send(Box<Sending>),
}

#[derive(Debug)]
struct Sending {
    missing: Option<Key>,
    dropped: Option<Key>,
    before: Option<Entry>,
    id: Option<String>,
    recover: bool,
    outcome: Option<Outcome>,
}

/// What a transaction is about to commit, and then to put into memory.
#[derive(Debug, Default)]
struct Changes {
    entries: Vec<(Key, Option<Entry>)>,
    parked: Vec<(Key, Option<Parked>)>,
    letters: Vec<(Key, Option<Letter>)>,
    redone: Vec<Key>,
    timers: Vec<(Key, u64)>,
}

/// The parts of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Is the batch still ours?
    Enter,
    /// Takes the producer and produces.
    Produce,
    /// Sends the offsets.
    Offsets,
    /// Asks for the commit.
    Commit,
    /// Hears of it.
    Answer,
    /// Puts it into memory.
    Remember,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Taken,
    Judged,
    Pending(Part),
    Send,
    Wait,
    Outcome(Part),
}

/// A lane's batch.
#[derive(Debug)]
struct Batch {
    number: u64,
    epoch: u64,
    meta: Meta,
    messages: Vec<(usize, usize)>,
    released: Vec<Key>,
    starts: Vec<Next>,
    works: Vec<Work>,
    plans: Vec<Plan>,
    changes: Changes,
    stage: Stage,
    open: Vec<usize>,
    pending_since: u64,
    transaction: Option<usize>,
    ends: Vec<(usize, usize, usize)>,
}

/// A lane.
#[derive(Debug, Default)]
struct Lane {
    messages: VecDeque<(usize, usize)>,
    released: Vec<Key>,
    timers: Vec<(u64, Key)>,
    committed: HashMap<usize, usize>,
    batch: Option<Batch>,
    in_flight: bool,
    /// The assignment in which it dropped a batch: it begins no other in it.
    held: Option<u64>,
    /// It waits for the first copy of its parents.
    held_back: bool,
}

/// What the thread that polls is at.
#[derive(Debug, Clone)]
enum Poller {
    /// Not in the group.
    Out,
    /// Waits for the end of a rebalance.
    Joined,
    /// Partitions are assigned; committed offsets are asked for.
    Assigned(Meta, Vec<usize>),
    /// The ends of the tables are asked for.
    Ends(Meta, Vec<usize>, Vec<Next>),
    /// The tail is waited for.
    Restoring(Meta, Vec<usize>, Vec<Next>, Vec<(usize, usize, usize)>),
    /// Reading.
    Running(Meta),
    /// Partitions go; batches under way have some time.
    Revoking(u64),
}

/// The tail's place in a partition of a table.
#[derive(Debug, Default, Clone, Copy)]
struct Following {
    /// What it reads next.
    fetch: usize,
    /// What it tells others that it has read.
    position: usize,
    /// Where it is to go back to.
    seek: Option<usize>,
}

/// What is in memory.
#[derive(Debug, Default)]
pub struct Known {
    entries: [Option<Entry>; KEYS.len()],
    seen: [Option<u64>; KEYS.len()],
    parked: [Option<Parked>; KEYS.len()],
    letters: [Option<Letter>; KEYS.len()],
    redo: [Option<Redone>; KEYS.len()],
    /// Up to when everything that the source wrote of an entity is known.
    covered: [Option<u64>; 2],
    owned: Vec<usize>,
    epoch: Option<u64>,
    through: [[usize; MOST_PARTITIONS]; TABLES],
    /// By partition, behind the last letter that the tail told.
    told: [usize; MOST_PARTITIONS],
}

/// A worker's place, and the process that runs there.
#[derive(Debug)]
pub struct Worker {
    name: String,
    /// The process's number; each start has a new one.
    pub process: u64,
    /// Whether there is a process.
    pub alive: bool,
    /// Whether it is stopped for a while.
    pub paused: bool,
    /// Since when it is silent, where it is dead or paused.
    pub silent_since: u64,
    member: u64,
    poller: Poller,
    epoch: u64,
    group: Option<Meta>,
    fetched: HashMap<(usize, usize), usize>,
    lanes: [Lane; 2],
    tail: [[Following; MOST_PARTITIONS]; TABLES],
    letting_go: Vec<Key>,
    known: Known,
    holder: Option<usize>,
    last: Option<usize>,
    batches: u64,
}

impl Known {
    fn has_id(&self, key: Key) -> bool {
        self.entries[key]
            .as_ref()
            .is_some_and(|entry| entry.target_id.is_some())
    }

    /// Whether the target has nothing for a key, and never had.
    fn is_gone(&self, key: Key) -> bool {
        self.entries[key]
            .as_ref()
            .is_some_and(|e| e.target_id.is_none() && matches!(e.state, State::Deleted { .. }))
    }

    fn waits_for(&self, key: Key) -> Option<Key> {
        match self.parked[key].as_ref().map(|parked| parked.reason) {
            Some(Reason::Parent(parent)) => Some(parent),
            _ => self.letters[key].and_then(|letter| letter.waits_for),
        }
    }

    /// The circle that a child closes by waiting for its parent, by the real
    /// rule.
    fn closes_circle(&self, child: Key, parent: Key) -> bool {
        let waits_for = |of: &CanonicalKey| self.waits_for(number_of(of)?).map(name_of);
        circle(&name_of(child), &name_of(parent), waits_for).is_some()
    }

    /// Whether a parent without an id never comes for a child of that time, by
    /// the real rule.
    fn never(&self, parent: Key, child: u64) -> bool {
        let entry = self.entries[parent].as_ref();
        let letter = self.letters[parent];
        let sight = Sight {
            unmigrated: false,
            absent: entry.and_then(|entry| match entry.state {
                State::Deleted { reason } => Some(reason),
                _ => None,
            }),
            underway: entry.is_some() || self.parked[parent].is_some() || letter.is_some(),
            orphan: letter.is_some_and(|letter| letter.waits_for.is_some()),
            covered: self.covered[KEYS[parent].entity].map(|at| at as i64),
        };
        never(&sight, child as i64).is_some()
    }

    /// Whether a parked record waits in vain.
    fn in_vain(&self, key: Key) -> bool {
        self.parked[key]
            .as_ref()
            .is_some_and(|parked| match parked.reason {
                Reason::Parent(parent) => {
                    !self.has_id(parent)
                        && (self.never(parent, parked.content.at)
                            || self.closes_circle(key, parent))
                }
                Reason::Link(parent) => {
                    !self.has_id(parent) && self.never(parent, parked.content.at)
                }
                Reason::Dropped(_) | Reason::Lease => false,
            })
    }

    /// As `Known::can_go_on`.
    fn can_go_on(&self, parked: &Parked) -> bool {
        parked.reason.parent().is_none_or(|parent| {
            let waits = !matches!(parked.reason, Reason::Dropped(_));
            self.has_id(parent) || waits && self.is_gone(parent)
        })
    }

    /// As `Known::put_entry`: `true` when the key has an id in the target now,
    /// or never will.
    fn put_entry(&mut self, key: Key, entry: Option<Entry>, now: u64) -> bool {
        let pending = entry
            .as_ref()
            .is_some_and(|e| matches!(e.state, State::Pending { .. }));
        if !pending {
            self.seen[key] = None;
        } else if self.entries[key] != entry || self.seen[key].is_none() {
            self.seen[key] = Some(now);
        }
        let settled = entry
            .as_ref()
            .is_some_and(|e| matches!(e.state, State::Deleted { .. }));
        self.entries[key] = entry;
        self.has_id(key) || settled
    }
}

impl Worker {
    /// A place without a process.
    pub fn new(place: usize) -> Self {
        Worker {
            name: format!("worker {place}"),
            process: 0,
            alive: false,
            paused: false,
            silent_since: 0,
            member: 0,
            poller: Poller::Out,
            epoch: 0,
            group: None,
            fetched: HashMap::new(),
            lanes: Default::default(),
            tail: Default::default(),
            letting_go: Vec::new(),
            known: Known::default(),
            holder: None,
            last: None,
            batches: 0,
        }
    }

    /// Whether it does anything.
    pub fn runs(&self) -> bool {
        self.alive && !self.paused
    }

    /// Whether a lane waits for a person.
    pub fn blocked(&self) -> bool {
        self.alive && self.lanes.iter().any(|lane| lane.held == Some(self.epoch))
    }

    /// Whether something happens by itself when time goes on.
    pub fn waits(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| !lane.timers.is_empty() || lane.batch.is_some())
            || !matches!(self.poller, Poller::Running(_) | Poller::Joined)
    }

    /// Which of the keys differ in memory from that table.
    pub fn differs(&self, log: &[Row]) -> Option<&'static str> {
        let known = &self.known;
        log.iter()
            .enumerate()
            .find(|(key, row)| {
                known.entries[*key] != row.entry
                    || known.parked[*key] != row.parked
                    || known.letters[*key] != row.letter
                    || known.redo[*key] != row.redo
            })
            .map(|(key, _)| KEYS[key].name)
    }
}

/// What the tables say of a key.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub entry: Option<Entry>,
    pub parked: Option<Parked>,
    pub letter: Option<Letter>,
    pub redo: Option<Redone>,
}

/// A key of the simulation as the real rule takes it.
fn name_of(key: Key) -> CanonicalKey {
    CanonicalKey::parse(&format!("s/o/{key}#x")).expect("a key")
}

fn number_of(key: &CanonicalKey) -> Option<Key> {
    key.parts().2.parse().ok()
}

/// How a step of a lane went.
enum Step {
    /// On to the next.
    On,
    /// It can't be done now.
    Not,
    /// The batch is done.
    Done,
    /// The batch is dropped.
    Gone,
    /// The lane waits for a person.
    Blocked,
    /// The process ends.
    Dead,
}

/// The entry of a version, with what must survive of the one before.
fn fresh(work: &Work, before: Option<&Entry>) -> Entry {
    Entry {
        order: work.order,
        fingerprint: World::fingerprint(work.content),
        state: if work.content.absent {
            State::Deleted {
                reason: AbsentReason::Deleted,
            }
        } else {
            State::Applied
        },
        target_id: before.and_then(|entry| entry.target_id.clone()),
        first_touch: None,
        unknown: serde_json::Map::new(),
    }
}

fn describe(reason: Reason) -> String {
    match reason {
        Reason::Parent(key) => format!("waits for {}", KEYS[key].name),
        Reason::Link(key) => format!("link to {}", KEYS[key].name),
        Reason::Dropped(key) => format!("dropped link to {}", KEYS[key].name),
        Reason::Lease => "lease".to_owned(),
    }
}
