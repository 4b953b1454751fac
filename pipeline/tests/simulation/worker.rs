//! A loader's process, in the steps of the real one (`pipeline/src/load`): the
//! thread that polls, the lanes, the tail, and what is in memory. Each function
//! of [`World`] here does one step of one of them; anything may happen between
//! two steps.

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

impl World {
    fn told(&mut self, worker: usize, what: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let name = self.workers[worker].name.clone();
            self.say(&name, what);
        }
    }

    // --- processes ----------------------------------------------------------

    /// Starts a process in a place: an older one's transaction is aborted, or
    /// its end is waited for.
    pub fn start(&mut self, place: usize) -> bool {
        if self.workers[place].alive {
            return false;
        }
        let process = self.workers[place].process + 1;
        for number in 0..self.transactions.len() {
            if self.transactions[number].worker == place && !self.transactions[number].complete() {
                if self.transactions[number].fate == Fate::Open {
                    self.abort(number);
                }
                while !self.transactions[number].unmarked.is_empty() {
                    self.mark(number, Some(0));
                }
                self.mark(number, None);
            }
        }
        self.workers[place] = Worker {
            process,
            alive: true,
            ..Worker::new(place)
        };
        self.told(place, || format!("starts as process {process}"));
        true
    }

    /// The process ends at once; its requests go on.
    pub fn kill(&mut self, place: usize, why: &str) -> bool {
        if !self.workers[place].alive {
            return false;
        }
        let worker = &mut self.workers[place];
        let process = worker.process;
        if !worker.paused {
            worker.silent_since = self.now;
        }
        worker.alive = false;
        worker.paused = false;
        for request in &mut self.requests {
            if request.sender.0 == place && request.sender.1 == process {
                request.awaited = false;
            }
        }
        self.count(Event::Kills);
        self.told(place, || why.to_owned());
        true
    }

    // --- the thread that polls ----------------------------------------------

    /// One step of the thread that polls; `choice` says which partition it
    /// reads from.
    pub fn poll(&mut self, place: usize, choice: usize) -> bool {
        if !self.workers[place].runs() {
            return false;
        }
        match self.workers[place].poller.clone() {
            Poller::Out => {
                let member = if self.group.members.contains_key(&place) {
                    self.take_over(place)
                } else {
                    self.join(place)
                };
                self.workers[place].member = member;
                self.workers[place].poller = Poller::Joined;
                true
            }
            Poller::Joined => self.synchronise(place),
            Poller::Assigned(meta, partitions) => {
                if partitions
                    .iter()
                    .any(|partition| self.offsets_pending(*partition))
                {
                    return false;
                }
                let starts = partitions
                    .iter()
                    .flat_map(|p| (0..2).map(move |entity| (entity, *p)))
                    .map(|(entity, p)| (entity, p, self.group.offsets[entity][p]))
                    .collect();
                self.workers[place].poller = Poller::Ends(meta, partitions, starts);
                true
            }
            Poller::Ends(meta, partitions, starts) => {
                let ends = partitions
                    .iter()
                    .flat_map(|p| (0..TABLES).map(move |table| (table, *p)))
                    .map(|(table, p)| {
                        let log = &self.logs[table][p];
                        if self.has(Rule::RestoreToHighWatermark) {
                            (table, p, log.items.len())
                        } else {
                            (table, p, log.stable())
                        }
                    })
                    .collect();
                self.workers[place].poller = Poller::Restoring(meta, partitions, starts, ends);
                true
            }
            Poller::Restoring(meta, partitions, starts, ends) => {
                self.own(place, meta, partitions, &starts, &ends)
            }
            Poller::Running(meta) => {
                let current = self
                    .group
                    .members
                    .get(&place)
                    .filter(|m| m.id == meta.member);
                if current.is_none_or(|member| {
                    self.group.preparing && !member.joined
                        || self.group.generation != meta.generation
                }) {
                    self.revoke(place);
                    return true;
                }
                self.read(place, choice)
            }
            Poller::Revoking(since) => self.disown(place, since),
        }
    }

    fn synchronise(&mut self, place: usize) -> bool {
        let member = self.workers[place].member;
        match self.group.members.get(&place).filter(|m| m.id == member) {
            None => {
                self.workers[place].poller = Poller::Out;
                true
            }
            Some(_) if self.group.preparing => {
                if let Some(member) = self.group.members.get_mut(&place)
                    && !member.joined
                {
                    member.joined = true;
                    self.complete();
                    return true;
                }
                false
            }
            Some(current) => {
                let meta = Meta {
                    member,
                    generation: self.group.generation,
                };
                let partitions = current.partitions.clone();
                self.told(place, || format!("is assigned partitions {partitions:?}"));
                self.workers[place].poller = Poller::Assigned(meta, partitions);
                true
            }
        }
    }

    fn own(
        &mut self,
        place: usize,
        meta: Meta,
        partitions: Vec<usize>,
        starts: &[Next],
        ends: &[(usize, usize, usize)],
    ) -> bool {
        let look_again = self.has(Rule::LookAgainOnAssignment);
        let heals = self.has(Rule::OrphansOnAssignment);
        let redoes = self.has(Rule::RedoOnAssignment);
        let owned: Vec<bool> = (0..KEYS.len())
            .map(|key| partitions.contains(&self.partition(key)))
            .collect();
        let worker = &mut self.workers[place];
        let tail = worker.tail;
        if ends.iter().any(|(table, p, end)| {
            let following = tail[*table][*p];
            following.position < *end || following.seek.is_some()
        }) {
            return false;
        }
        worker.known.owned = partitions;
        worker.known.epoch = Some(worker.epoch);
        for (table, p, end) in ends {
            worker.known.through[*table][*p] = *end;
        }
        worker.group = Some(meta);
        worker.fetched.clear();
        for (entity, p, next) in starts {
            worker.fetched.insert((*entity, *p), *next);
            worker.lanes[*entity].committed.insert(*p, *next);
        }
        for key in (0..KEYS.len()).filter(|key| owned[*key]) {
            let known = &worker.known;
            let parked = known.parked[key].as_ref();
            let again = look_again && parked.is_some_and(|parked| known.can_go_on(parked));
            let healed = heals
                && known.letters[key]
                    .and_then(|letter| letter.waits_for)
                    .is_some_and(|parent| known.has_id(parent));
            let redone = redoes && known.redo[key].is_some();
            if again || healed || redone {
                worker.lanes[KEYS[key].entity].released.push(key);
            }
        }
        worker.poller = Poller::Running(meta);
        self.told(place, || "has restored its tables and reads".to_owned());
        true
    }

    fn read(&mut self, place: usize, choice: usize) -> bool {
        let worker = &mut self.workers[place];
        let mut places: Vec<(usize, usize)> = worker.fetched.keys().copied().collect();
        places.sort_unstable();
        for turn in 0..places.len() {
            let (entity, p) = places[(turn + choice) % places.len()];
            let Some(at) = worker.fetched.get_mut(&(entity, p)) else {
                continue;
            };
            let log = &self.canonical[entity][p];
            while let Some(item) = log.get(*at) {
                let offset = *at;
                *at += 1;
                if matches!(item, Canonical::Record { .. }) {
                    worker.lanes[entity].messages.push_back((p, offset));
                    self.told(place, || format!("polls entity {entity} {p}@{offset}"));
                    return true;
                }
            }
        }
        false
    }

    /// A partition's end was reached: positions behind markers are committed
    /// where the lane holds nothing.
    pub fn end(&mut self, place: usize) -> bool {
        let holds = self.has(Rule::BlockedHoldsPositions);
        let worker = &self.workers[place];
        let (Poller::Running(_), Some(meta), None) = (&worker.poller, worker.group, worker.holder)
        else {
            return false;
        };
        let at_end =
            |(entity, p): &(usize, usize), at: &usize| *at >= self.canonical[*entity][*p].len();
        if !worker.runs()
            || worker
                .last
                .is_some_and(|last| !self.transactions[last].complete())
            || !worker.fetched.iter().any(|(place, at)| at_end(place, at))
        {
            return false;
        }
        let mut offsets: Vec<Next> = Vec::new();
        for (&(entity, p), &position) in &worker.fetched {
            let lane = &worker.lanes[entity];
            let busy = lane.in_flight
                || !lane.messages.is_empty()
                || holds && lane.held == Some(worker.epoch);
            if !busy && lane.committed.get(&p).is_none_or(|at| *at < position) {
                offsets.push((entity, p, position));
            }
        }
        offsets.sort_unstable();
        if offsets.is_empty() {
            return false;
        }
        if !self.is_member(place, meta) {
            return true;
        }
        self.told(place, || format!("commits the positions {offsets:?}"));
        for &(entity, p, next) in &offsets {
            self.workers[place].lanes[entity].committed.insert(p, next);
            self.group.offsets[entity][p] = next;
        }
        self.decide(&offsets);
        true
    }

    /// Partitions go: no batch begins any more, those under way may finish.
    fn revoke(&mut self, place: usize) {
        self.workers[place].poller = Poller::Revoking(self.now);
        self.told(place, || "hears of the rebalance".to_owned());
    }

    /// Partitions are gone: what has not finished in time is dropped.
    fn disown(&mut self, place: usize, since: u64) -> bool {
        let seek = self.has(Rule::TailSeeksBackOnLoss);
        let now = self.now;
        let worker = &mut self.workers[place];
        if worker.lanes.iter().any(|lane| lane.in_flight) && now < since + REVOKE {
            return false;
        }
        worker.group = None;
        worker.epoch += 1;
        for lane in &mut worker.lanes {
            lane.in_flight = false;
            lane.messages.clear();
            lane.released.clear();
            lane.timers.clear();
        }
        for lane in &mut worker.lanes {
            lane.committed.clear();
        }
        worker.fetched.clear();
        worker.known.epoch = None;
        for p in std::mem::take(&mut worker.known.owned) {
            for table in [IDEMPOTENCY, PARKED] {
                if seek {
                    let back = worker.known.through[table][p];
                    worker.tail[table][p].seek = Some(back);
                    worker.tail[table][p].position = back;
                }
            }
        }
        worker.poller = Poller::Joined;
        let member = worker.member;
        self.told(place, || "has given its partitions back".to_owned());
        if let Some(current) = self
            .group
            .members
            .get_mut(&place)
            .filter(|m| m.id == member)
        {
            current.joined = self.group.preparing;
            self.complete();
        } else {
            self.workers[place].poller = Poller::Out;
        }
        true
    }

    // --- the tail -----------------------------------------------------------

    /// One step of the tail in a partition of a table. `late`: a poll that was
    /// under way when it was told to go back brings its record first.
    pub fn follow(&mut self, place: usize, table: usize, p: usize, late: bool) -> bool {
        if !self.workers[place].runs() {
            return false;
        }
        let keeps = self.has(Rule::SeekBeforeTelling);
        let mut did = self.let_go(place);
        let worker = &mut self.workers[place];
        let following = &mut worker.tail[table][p];
        let mut passing = false;
        if let Some(back) = following.seek {
            did = true;
            if late {
                passing = true;
            } else {
                following.seek = None;
                following.fetch = back;
            }
        }
        let log = &self.logs[table][p];
        let stable = log.stable();
        while following.fetch < stable {
            let offset = following.fetch;
            following.fetch += 1;
            let record = match &log.items[offset] {
                Logged::Record { by, key, value }
                    if self.transactions[*by].fate == Fate::Committed =>
                {
                    Some((*key, Value::clone(value)))
                }
                _ => None,
            };
            did = true;
            if passing && keeps {
                return true;
            }
            if !passing {
                following.position = offset + 1;
            }
            if let Some((key, value)) = record {
                self.note(place, table, p, offset, key, value);
                return true;
            }
            if passing {
                return true;
            }
        }
        did
    }

    fn note(&mut self, place: usize, table: usize, p: usize, at: usize, key: Key, value: Value) {
        let now = self.now;
        let heals = self.has(Rule::OrphanWhoseParentCame);
        let committed = self.has(Rule::LettersAsCommitted);
        let worker = &mut self.workers[place];
        let owned = worker.known.owned.contains(&p);
        match value {
            // These two are followed whoever owns the partition; but of letters
            // the tail must not bring back what our own commit took back.
            Value::Letter(letter) => {
                worker.known.told[p] = at + 1;
                if !committed || at >= worker.known.through[table][p] {
                    worker.known.letters[key] = letter;
                }
                let parent = letter.and_then(|letter| letter.waits_for);
                if heals && owned && parent.is_some_and(|p| worker.known.has_id(p)) {
                    worker.letting_go.push(key);
                }
                return;
            }
            Value::Redo(redo) => {
                worker.known.redo[key] = redo;
                if owned && redo.is_some() {
                    worker.letting_go.push(key);
                }
                return;
            }
            Value::Entry(_) | Value::Parked(_) => {}
        }
        if owned {
            return;
        }
        worker.known.through[table][p] = at + 1;
        match value {
            Value::Entry(entry) => {
                if worker.known.put_entry(key, entry, now) {
                    let waiting = self.waiters(place, key);
                    self.workers[place].letting_go.extend(waiting);
                }
            }
            Value::Parked(parked) => worker.known.parked[key] = parked,
            Value::Letter(_) | Value::Redo(_) => {}
        }
    }

    /// Those of ours that go on when that key has come, or is gone.
    fn waiters(&self, place: usize, parent: Key) -> Vec<Key> {
        let known = &self.workers[place].known;
        (0..KEYS.len())
            .filter(|key| known.owned.contains(&self.partition(*key)))
            .filter(|key| {
                let parked = known.parked[*key].as_ref();
                let letter = known.letters[*key];
                parked.is_some_and(|p| p.reason.parent() == Some(parent))
                    || known.has_id(parent)
                        && letter.is_some_and(|letter| letter.waits_for == Some(parent))
            })
            .collect()
    }

    // --- the stages in front --------------------------------------------------

    /// Takes note of what the source had of an entity until now, where all of it
    /// has reached this worker's tables.
    pub fn cover(&mut self, place: usize, entity: usize) -> bool {
        let worker = &self.workers[place];
        let Some(until) = self.now.checked_sub(1).filter(|_| worker.runs()) else {
            return false;
        };
        let through = (0..self.setting.partitions).all(|p| {
            self.group.offsets[entity][p] >= self.canonical[entity][p].len()
                && [IDEMPOTENCY, PARKED, LETTERS].iter().all(|table| {
                    let following = worker.tail[*table][p];
                    following.seek.is_none()
                        && following.position >= self.logs[*table][p].items.len()
                })
        });
        let known = &mut self.workers[place].known;
        if !through || known.covered[entity] >= Some(until) {
            return false;
        }
        known.covered[entity] = Some(until);
        true
    }

    /// Lets go on to their end those that wait in vain.
    pub fn search(&mut self, place: usize) -> bool {
        let worker = &self.workers[place];
        if !worker.runs() || !self.has(Rule::SearchInVain) {
            return false;
        }
        let found: Vec<Key> = (0..KEYS.len())
            .filter(|key| worker.known.owned.contains(&self.partition(*key)))
            .filter(|key| worker.known.in_vain(*key))
            .filter(|key| !worker.lanes[KEYS[*key].entity].released.contains(key))
            .collect();
        let worker = &mut self.workers[place];
        for key in &found {
            worker.lanes[KEYS[*key].entity].released.push(*key);
        }
        !found.is_empty()
    }

    /// The children's lane waits for its parents' first copy, or does no more.
    pub fn hold_back(&mut self, place: usize, hold: bool) -> bool {
        let lane = &mut self.workers[place].lanes[CHILDREN];
        if lane.held_back == hold {
            return false;
        }
        lane.held_back = hold;
        if hold {
            self.count(Event::HeldBack);
        }
        true
    }

    /// What the tail found to be released gets to the lanes.
    fn let_go(&mut self, place: usize) -> bool {
        let worker = &mut self.workers[place];
        let keys = std::mem::take(&mut worker.letting_go);
        for key in &keys {
            worker.lanes[KEYS[*key].entity].released.push(*key);
        }
        !keys.is_empty()
    }

    // --- the lanes ----------------------------------------------------------

    /// One step of a lane.
    pub fn lane(&mut self, place: usize, lane: usize) -> bool {
        if !self.workers[place].runs() {
            return false;
        }
        let Some(mut batch) = self.workers[place].lanes[lane].batch.take() else {
            return self.take(place, lane);
        };
        let process = self.workers[place].process;
        let did = match batch.stage {
            Stage::Taken => {
                self.judge(place, &mut batch);
                batch.stage = Stage::Judged;
                Step::On
            }
            Stage::Judged => {
                self.recover(&mut batch);
                let plans = &batch.plans;
                batch.open = (0..plans.len())
                    .filter(|at| matches!(plans[*at], Plan::Send(_)))
                    .collect();
                self.begin_sending(place, &mut batch);
                Step::On
            }
            Stage::Pending(part) => self.transaction(place, lane, &mut batch, part, true),
            Stage::Send => self.send(place, lane, &mut batch),
            Stage::Wait => self.collect(place, &mut batch),
            Stage::Outcome(part) => self.transaction(place, lane, &mut batch, part, false),
        };
        let epoch = self.workers[place].epoch;
        match did {
            Step::On => {}
            Step::Not => {
                self.workers[place].lanes[lane].batch = Some(batch);
                return false;
            }
            Step::Done => {
                let current = &mut self.workers[place].lanes[lane];
                if batch.epoch == epoch {
                    current.in_flight = false;
                    for (p, offset) in &batch.messages {
                        current.committed.insert(*p, offset + 1);
                    }
                }
                return true;
            }
            Step::Gone | Step::Blocked => {
                self.forget(place, &batch);
                self.count(Event::DroppedBatches);
                self.told(place, || format!("lane {lane} drops its batch"));
                let worker = &mut self.workers[place];
                let closing = matches!(worker.poller, Poller::Revoking(_));
                if batch.epoch == epoch {
                    worker.lanes[lane].in_flight = false;
                    worker.lanes[lane].held = Some(epoch);
                }
                if matches!(did, Step::Blocked) {
                    self.count(Event::BlockedLanes);
                } else if batch.epoch == epoch && !closing {
                    self.kill(place, "was refused without a rebalance, and ends");
                }
                return true;
            }
            Step::Dead => {
                self.kill(place, "is fenced, and ends");
                return true;
            }
        }
        if self.workers[place].alive && self.workers[place].process == process {
            self.workers[place].lanes[lane].batch = Some(batch);
        }
        true
    }

    fn forget(&mut self, place: usize, batch: &Batch) {
        let process = self.workers[place].process;
        for request in &mut self.requests {
            let (worker, p, _, number, _) = request.sender;
            if (worker, p, number) == (place, process, batch.number) {
                request.awaited = false;
            }
        }
    }

    fn take(&mut self, place: usize, lane: usize) -> bool {
        let now = self.now;
        let worker = &mut self.workers[place];
        let (Some(meta), epoch) = (worker.group, worker.epoch) else {
            return false;
        };
        let closing = matches!(worker.poller, Poller::Revoking(_));
        let current = &mut worker.lanes[lane];
        if current.held == Some(epoch) || closing {
            return false;
        }
        let due = current
            .timers
            .iter()
            .filter(|(at, _)| *at <= now)
            .map(|(_, key)| *key);
        current.released.extend(due);
        current.timers.retain(|(at, _)| *at > now);
        let count = match current.held_back {
            true => 0,
            false => current.messages.len().min(BATCH),
        };
        let messages: Vec<(usize, usize)> = current.messages.drain(..count).collect();
        let released = std::mem::take(&mut current.released);
        if messages.is_empty() && released.is_empty() {
            return false;
        }
        let mut starts = current.committed.clone();
        for (p, offset) in messages.iter().rev() {
            starts.insert(*p, *offset);
        }
        let mut starts: Vec<Next> = starts.into_iter().map(|(p, at)| (lane, p, at)).collect();
        starts.sort_unstable();
        current.in_flight = true;
        worker.batches += 1;
        current.batch = Some(Batch {
            number: worker.batches,
            epoch,
            meta,
            messages,
            released,
            starts,
            works: Vec::new(),
            plans: Vec::new(),
            changes: Changes::default(),
            stage: Stage::Taken,
            open: Vec::new(),
            pending_since: 0,
            transaction: None,
            ends: Vec::new(),
        });
        true
    }

    /// Decodes, keeps the newest of each key, asks the rule.
    fn judge(&mut self, place: usize, batch: &mut Batch) {
        let entity = batch.starts.first().map_or(0, |(entity, ..)| *entity);
        let mut works: Vec<Work> = Vec::new();
        for (p, offset) in &batch.messages {
            if let Canonical::Record {
                key,
                version,
                mapping,
                content,
            } = self.canonical[entity][*p][*offset]
            {
                let order = self.order_of(version, mapping, *offset);
                works.push(Work {
                    key,
                    order,
                    content,
                });
            }
        }
        for key in &batch.released {
            let known = &self.workers[place].known;
            if self.has(Rule::ReleasedOnlyWhileOwned)
                && !known.owned.contains(&self.partition(*key))
            {
                continue;
            }
            let redo = known.redo[*key].map(|redo| (redo.order, redo.content));
            let letter = known.letters[*key].filter(|letter| letter.waits_for.is_some());
            let letter = letter.map(|letter| (letter.order, letter.content));
            let parked = known.parked[*key].as_ref().filter(|parked| {
                let links = matches!(parked.reason, Reason::Link(_) | Reason::Dropped(_));
                !links
                    || !self.has(Rule::ReleasedForItsReason)
                    || known.can_go_on(parked)
                    || known.in_vain(*key)
            });
            let parked = parked.map(|parked| (parked.order, parked.content));
            let (was_parked, was_dead) = (parked.is_some(), letter.is_some());
            for (order, content) in parked.into_iter().chain(redo).chain(letter) {
                works.push(Work {
                    key: *key,
                    order,
                    content,
                });
            }
            if was_parked {
                self.count(Event::Released);
            }
            if was_dead {
                self.count(Event::Healed);
            }
        }
        if self.has(Rule::NewestPerKey) {
            let mut kept: Vec<Work> = Vec::new();
            for work in works {
                match kept.iter_mut().find(|other| other.key == work.key) {
                    Some(other) if other.order >= work.order => {}
                    Some(other) => *other = work,
                    None => kept.push(work),
                }
            }
            works = kept;
        }
        let plans: Vec<Plan> = works.iter().map(|work| self.plan(place, work)).collect();
        if self.trace.is_some() {
            for (work, plan) in works.iter().zip(&plans) {
                let what = match plan {
                    Plan::Drop => "drops".to_owned(),
                    Plan::Note(..) => "notes".to_owned(),
                    Plan::Park(reason, _) => format!("will park ({})", describe(*reason)),
                    Plan::Orphan(parent, _) => {
                        format!("gives up, for want of {}, on", KEYS[*parent].name)
                    }
                    Plan::Send(sending) if sending.recover => "will recover".to_owned(),
                    Plan::Send(_) => "will send".to_owned(),
                };
                self.told(place, || {
                    format!("{what} {} v{}", KEYS[work.key].name, work.order.version)
                });
            }
        }
        if self.setting.kind == Kind::Ordered && self.has(Rule::LinksAreInTheOrder) {
            for (work, plan) in works.iter_mut().zip(&plans) {
                let linked = matches!(plan, Plan::Send(sending)
                    if sending.missing.is_none() && sending.dropped.is_none());
                let optional = matches!(KEYS[work.key].parent, Some((_, false)));
                work.order.reapply += u32::from(linked && optional && !work.content.absent);
            }
        }
        batch.works = works;
        batch.plans = plans;
    }

    fn plan(&mut self, place: usize, work: &Work) -> Plan {
        let lease = self.lease();
        let ordered = self.setting.kind == Kind::Ordered;
        let known = &self.workers[place].known;
        if self.has(Rule::ParkedIsNewer)
            && let Some(parked) = &known.parked[work.key]
            && parked.order > work.order
        {
            self.count(Event::Stale);
            return Plan::Drop;
        }
        if let Some(parked) = &known.parked[work.key]
            && let Reason::Link(parent) = parked.reason
            && parked.order == work.order
            && known.entries[work.key]
                .as_ref()
                .is_some_and(|e| !matches!(e.state, State::Pending { .. }))
            && known.in_vain(work.key)
        {
            return Plan::Park(Reason::Dropped(parent), None);
        }
        let entry = known.entries[work.key].clone();
        let incoming = Incoming {
            order: work.order,
            fingerprint: World::fingerprint(work.content),
            absent: work.content.absent,
        };
        let seen = known.seen[work.key].map_or(0, |since| self.now - since);
        let unsure = ordered && self.has(Rule::NoShortcutWithoutPending);
        match judge(
            entry.as_ref(),
            &incoming,
            &lease,
            Duration::from_millis(seen),
        ) {
            Verdict::Stale => {
                self.count(Event::Stale);
                Plan::Drop
            }
            // Between two mappings `judge` itself knows what can be trusted.
            Verdict::Unchanged => {
                self.count(Event::Unchanged);
                match entry {
                    Some(entry) => Plan::Note(
                        Entry {
                            order: work.order,
                            ..entry
                        },
                        true,
                    ),
                    None => Plan::Drop,
                }
            }
            Verdict::Remember if !unsure => {
                self.count(Event::Remembered);
                Plan::Note(fresh(work, entry.as_ref()), false)
            }
            Verdict::Wait(left) => Plan::Park(Reason::Lease, Some(left.as_millis() as u64)),
            Verdict::Recover => {
                self.count(Event::Recovered);
                self.sending(place, work, entry, true)
            }
            Verdict::Apply | Verdict::Remember => self.sending(place, work, entry, false),
        }
    }

    fn sending(&self, place: usize, work: &Work, entry: Option<Entry>, recover: bool) -> Plan {
        let id = entry.as_ref().and_then(|entry| entry.target_id.clone());
        let before = match entry {
            Some(Entry {
                state: State::Pending { before, .. },
                ..
            }) => before.map(|before| *before),
            other => other,
        };
        let (mut missing, mut dropped) = (None, None);
        let known = &self.workers[place].known;
        if let Some((parent, required)) = KEYS[work.key].parent
            && !work.content.absent
            && !known.has_id(parent)
        {
            let circle = required && known.closes_circle(work.key, parent);
            let never = known.never(parent, work.content.at);
            match (required, circle || never) {
                (true, true) => return Plan::Orphan(parent, circle),
                (true, false) => return Plan::Park(Reason::Parent(parent), None),
                (false, true) => dropped = Some(parent),
                (false, false) => missing = Some(parent),
            }
        }
        Plan::Send(Box::new(Sending {
            missing,
            dropped,
            before,
            id,
            recover,
            outcome: None,
        }))
    }

    /// Asks the target what became of earlier requests.
    fn recover(&mut self, batch: &mut Batch) {
        for (work, plan) in batch.works.iter().zip(&mut batch.plans) {
            let Plan::Send(sending) = plan else { continue };
            if !sending.recover {
                continue;
            }
            match self.find(work.key) {
                Some(found) => sending.id = Some(found),
                None if self.setting.kind != Kind::Ordered => {
                    sending.id = sending.before.as_ref().and_then(|e| e.target_id.clone());
                }
                None => {}
            }
        }
    }

    /// The beginning of a round of `send`: Pending for what is open, where the
    /// target needs it.
    fn begin_sending(&mut self, place: usize, batch: &mut Batch) {
        if batch.open.is_empty() {
            self.settle(place, batch);
            return;
        }
        batch.pending_since = self.now;
        if self.setting.kind == Kind::Ordered || !self.has(Rule::PendingBeforeApply) {
            batch.stage = Stage::Send;
            return;
        }
        let worker = &self.workers[place];
        let owner = format!("{place}.{}", worker.process);
        batch.changes = Changes::default();
        for at in &batch.open {
            let (Plan::Send(sending), work) = (&batch.plans[*at], &batch.works[*at]) else {
                continue;
            };
            let entry = Entry {
                state: State::Pending {
                    owner: owner.clone(),
                    since: self.now as i64,
                    before: sending.before.clone().map(Box::new),
                },
                target_id: sending.id.clone(),
                ..fresh(work, sending.before.as_ref())
            };
            batch.changes.entries.push((work.key, Some(entry)));
        }
        batch.stage = Stage::Pending(Part::Enter);
    }

    fn send(&mut self, place: usize, lane: usize, batch: &mut Batch) -> Step {
        let worker = &self.workers[place];
        let fresh = self.setting.kind == Kind::Ordered
            || !self.has(Rule::HalfLeaseCheck)
            || self.now - batch.pending_since < LEASE / 2;
        if !fresh {
            self.begin_sending(place, batch);
            return Step::On;
        }
        if worker.epoch != batch.epoch {
            return Step::Gone;
        }
        if self.refusing[lane] {
            return Step::Blocked;
        }
        let process = worker.process;
        for at in batch.open.clone() {
            let (Plan::Send(sending), work) = (&mut batch.plans[at], &batch.works[at]) else {
                continue;
            };
            if self.throttling && at % 2 == 1 {
                sending.outcome = Some(Outcome::NotSent);
                self.counts[Event::NotSent as usize] += 1;
                continue;
            }
            self.requests.push(Request {
                sender: (place, process, lane, batch.number, at),
                key: work.key,
                order: work.order,
                content: work.content,
                id: sending.id.clone(),
                linked: sending.missing.is_none() && sending.dropped.is_none(),
                sent: self.now,
                over: false,
                answer: None,
                awaited: true,
            });
            self.count(Event::Requests);
            self.told(place, || {
                format!("sends {} v{}", KEYS[work.key].name, work.order.version)
            });
        }
        batch.stage = Stage::Wait;
        Step::On
    }

    /// Whether every answer is there; what was not sent is tried again.
    fn collect(&mut self, place: usize, batch: &mut Batch) -> Step {
        let mut left = Vec::new();
        for at in &batch.open {
            let Plan::Send(sending) = &batch.plans[*at] else {
                continue;
            };
            match sending.outcome {
                None => return Step::Not,
                Some(Outcome::NotSent) => left.push(*at),
                Some(_) => {}
            }
        }
        // The wait before another try ends when partitions go.
        let worker = &self.workers[place];
        let closing = matches!(worker.poller, Poller::Revoking(_));
        if !left.is_empty() && (closing || worker.epoch != batch.epoch) {
            return Step::Gone;
        }
        for at in &left {
            if let Plan::Send(sending) = &mut batch.plans[*at] {
                sending.outcome = None;
            }
        }
        batch.open = left;
        self.begin_sending(place, batch);
        Step::On
    }

    /// An answer, or the news that there will be none, reaches its lane.
    pub fn answer(&mut self, number: usize, lost: bool) -> bool {
        let request = &mut self.requests[number];
        if !request.awaited || (!lost && request.answer.is_none()) {
            return false;
        }
        let (place, process, lane, batch, at) = request.sender;
        let worker = &mut self.workers[place];
        if worker.process != process || !worker.runs() {
            return false;
        }
        let outcome = if lost {
            Outcome::Unknown
        } else {
            request.answer.clone().unwrap_or(Outcome::Unknown)
        };
        request.awaited = false;
        let key = request.key;
        if let Some(current) = &mut worker.lanes[lane].batch
            && current.number == batch
            && let Some(Plan::Send(sending)) = current.plans.get_mut(at)
        {
            sending.outcome = Some(outcome);
        }
        if lost {
            self.count(Event::LostAnswers);
            self.told(place, || format!("gets no answer for {}", KEYS[key].name));
        }
        true
    }

    /// Turns outcomes into what is to be committed.
    fn settle(&mut self, place: usize, batch: &mut Batch) {
        let mut changes = Changes::default();
        let wait = (self.lease().wait().as_millis() as u64).max(1_000);
        let ordered = self.setting.kind == Kind::Ordered;
        let newest = self.has(Rule::NewestDeadLetter);
        let keeps = self.has(Rule::RejectKeepsFound);
        let unsure = self.has(Rule::NoShortcutWithoutPending);
        let keeps_link = self.has(Rule::UnchangedKeepsLink);
        for (work, plan) in batch.works.iter().zip(batch.plans.drain(..)) {
            let key = work.key;
            let parked = self.workers[place].known.parked[key].clone();
            let dead = self.workers[place].known.letters[key];
            let mut park = None;
            let mut waits = false;
            let mut succeeded = true;
            match plan {
                Plan::Drop => succeeded = false,
                Plan::Note(entry, unchanged) => {
                    changes.entries.push((key, Some(entry)));
                    // The same content once more: its link still waits, behind
                    // the order that is noted now.
                    if unchanged
                        && keeps_link
                        && let Some(reason @ (Reason::Link(_) | Reason::Dropped(_))) =
                            parked.as_ref().map(|p| p.reason)
                    {
                        let reapply = work.order.reapply + 1;
                        park = Some((
                            reason,
                            Order {
                                reapply,
                                ..work.order
                            },
                        ));
                    }
                }
                Plan::Park(reason, after) => {
                    succeeded = false;
                    if let Some(after) = after {
                        changes.timers.push((key, after));
                    }
                    waits = parked
                        .as_ref()
                        .is_some_and(|p| p.order == work.order && p.reason == reason);
                    let event = match reason {
                        Reason::Parent(_) => Event::Parents,
                        Reason::Link(_) => Event::Links,
                        Reason::Dropped(_) => Event::DroppedLinks,
                        Reason::Lease => Event::Leases,
                    };
                    if !waits {
                        self.count(event);
                        park = Some((reason, work.order));
                    }
                }
                Plan::Orphan(parent, circle) => {
                    succeeded = false;
                    let letter = Letter {
                        order: work.order,
                        content: work.content,
                        waits_for: Some(parent),
                    };
                    if dead != Some(letter) && dead.is_none_or(|l| l.order <= work.order) {
                        self.count(if circle {
                            Event::Circles
                        } else {
                            Event::Orphans
                        });
                        changes.letters.push((key, Some(letter)));
                    }
                }
                Plan::Send(sending) => match sending.outcome {
                    Some(Outcome::Applied { id, newer }) => {
                        let mut entry = fresh(work, sending.before.as_ref());
                        if newer && unsure {
                            // What the target has is not this content.
                            entry.fingerprint = Fingerprint::default();
                        }

                        let target_id = id.or(entry.target_id.clone());
                        changes
                            .entries
                            .push((key, Some(Entry { target_id, ..entry })));
                        let reason = match (sending.missing, sending.dropped) {
                            (Some(parent), _) => Some((Reason::Link(parent), Event::Links)),
                            (None, Some(parent)) => {
                                Some((Reason::Dropped(parent), Event::DroppedLinks))
                            }
                            (None, None) => None,
                        };
                        if let Some((reason, event)) = reason {
                            let reapply = work.order.reapply + 1;
                            self.count(event);
                            park = Some((
                                reason,
                                Order {
                                    reapply,
                                    ..work.order
                                },
                            ));
                        }
                    }
                    Some(Outcome::Rejected) => {
                        succeeded = false;
                        self.count(Event::Rejected);
                        if !newest || dead.is_none_or(|l| l.order <= work.order) {
                            let letter = Letter {
                                order: work.order,
                                content: work.content,
                                waits_for: None,
                            };
                            changes.letters.push((key, Some(letter)));
                        }
                        if !ordered {
                            let mut entry = sending.before;
                            let knows = entry.as_ref().is_some_and(|e| e.target_id.is_some());
                            if keeps && (!knows || sending.recover) && sending.id.is_some() {
                                // What recovery has found is known from now on;
                                // no content is equal to that entry's.
                                entry = Some(Entry {
                                    state: State::Applied,
                                    fingerprint: Fingerprint::default(),
                                    target_id: sending.id,
                                    ..fresh(work, entry.as_ref())
                                });
                            }
                            changes.entries.push((key, entry));
                        }
                    }
                    Some(Outcome::Unknown) => {
                        succeeded = false;
                        self.count(Event::Leases);
                        changes.timers.push((key, wait));
                        park = Some((Reason::Lease, work.order));
                    }
                    Some(Outcome::NotSent) | None => continue,
                },
            }
            let parks = park.is_some();
            match park {
                Some((reason, order)) => {
                    let content = work.content;
                    changes.parked.push((
                        key,
                        Some(Parked {
                            reason,
                            order,
                            content,
                        }),
                    ));
                }
                None if !waits && parked.is_some_and(|p| p.order <= work.order) => {
                    changes.parked.push((key, None));
                }
                None => {}
            }
            if self.workers[place].known.redo[key].is_some_and(|r| r.order <= work.order) {
                changes.redone.push(key);
            }
            // A record that waits is no longer dead.
            if (succeeded || parks) && dead.is_some_and(|l| l.order <= work.order) {
                changes.letters.push((key, None));
            }
        }
        batch.changes = changes;
        batch.stage = Stage::Outcome(Part::Enter);
    }

    /// A part of a transaction.
    fn transaction(
        &mut self,
        place: usize,
        lane: usize,
        batch: &mut Batch,
        part: Part,
        pending: bool,
    ) -> Step {
        let wrap = |part| {
            if pending {
                Stage::Pending(part)
            } else {
                Stage::Outcome(part)
            }
        };
        let open = |world: &World| {
            batch
                .transaction
                .is_some_and(|t| world.transactions[t].fate == Fate::Open)
        };
        match part {
            Part::Enter => {
                if self.workers[place].epoch != batch.epoch {
                    return Step::Gone;
                }
                batch.stage = wrap(Part::Produce);
            }
            Part::Produce => {
                let worker = &self.workers[place];
                if worker.holder.is_some() {
                    return Step::Not;
                }
                if let Some(last) = worker.last
                    && !self.transactions[last].complete()
                {
                    return Step::Not;
                }
                let entries = batch.changes.entries.iter();
                let records = entries
                    .map(|(key, entry)| (*key, Value::Entry(entry.clone())))
                    .chain(
                        batch
                            .changes
                            .parked
                            .iter()
                            .map(|(key, parked)| (*key, Value::Parked(parked.clone()))),
                    )
                    .chain(
                        batch
                            .changes
                            .letters
                            .iter()
                            .map(|(key, letter)| (*key, Value::Letter(*letter))),
                    )
                    .chain(
                        batch
                            .changes
                            .redone
                            .iter()
                            .map(|key| (*key, Value::Redo(None))),
                    )
                    .collect();
                let number = self.produce(place, records);
                batch.transaction = Some(number);
                batch.ends.clear();
                for (table, p) in &self.transactions[number].unmarked {
                    batch
                        .ends
                        .push((*table, *p, self.logs[*table][*p].items.len()));
                }
                self.workers[place].holder = Some(lane);
                self.workers[place].last = Some(number);
                batch.stage = wrap(Part::Offsets);
                let what = if pending { "Pending" } else { "the outcome" };
                self.told(place, || format!("lane {lane} produces {what}"));
            }
            Part::Offsets => {
                if !open(self) {
                    return Step::Dead;
                }
                let Some(number) = batch.transaction else {
                    return Step::Dead;
                };
                let mut offsets = batch.starts.clone();
                if !pending {
                    for (p, offset) in &batch.messages {
                        offsets.retain(|(_, partition, _)| partition != p);
                        offsets.push((lane, *p, offset + 1));
                    }
                    offsets.sort_unstable();
                }
                let meta = match self.workers[place].group {
                    Some(current) if !self.has(Rule::BatchStartGeneration) => current,
                    _ => batch.meta,
                };
                if !pending || self.has(Rule::StartOffsetsInPending) {
                    if !self.is_member(place, meta) {
                        self.abort(number);
                        self.workers[place].holder = None;
                        self.count(Event::RefusedByKafka);
                        self.told(place, || {
                            "is refused: no member of this generation".to_owned()
                        });
                        return Step::Gone;
                    }
                    if pending || self.has(Rule::OffsetsInTheTransaction) {
                        self.transactions[number].offsets = Some(offsets);
                    } else {
                        for &(entity, p, next) in &offsets {
                            self.group.offsets[entity][p] = next;
                        }
                        self.told(place, || "commits its offsets on their own".to_owned());
                    }
                }
                batch.stage = wrap(Part::Commit);
            }
            Part::Commit => {
                if !open(self) {
                    return Step::Dead;
                }
                let Some(number) = batch.transaction else {
                    return Step::Dead;
                };
                let what = if pending { "Pending" } else { "the outcome" };
                self.told(place, || format!("lane {lane} commits {what}"));
                self.commit(number);
                batch.stage = wrap(Part::Answer);
            }
            Part::Answer => {
                self.workers[place].holder = None;
                if self.has(Rule::MemoryOnlyWhileOwned) {
                    // Before the producer is free for another lane: else that
                    // lane's commit moves the end of what is in memory past
                    // this one.
                    self.remember(place, lane, batch);
                } else {
                    let known = &mut self.workers[place].known;
                    for (table, p, end) in &batch.ends {
                        known.through[*table][*p] = *end;
                    }
                }
                batch.stage = wrap(Part::Remember);
            }
            Part::Remember => {
                if !self.has(Rule::MemoryOnlyWhileOwned) {
                    self.remember(place, lane, batch);
                }
                if !pending {
                    return Step::Done;
                }
                batch.stage = Stage::Send;
            }
        }
        Step::On
    }

    /// Puts what is committed into memory, and looks again.
    fn remember(&mut self, place: usize, lane: usize, batch: &mut Batch) {
        let now = self.now;
        let changes = std::mem::take(&mut batch.changes);
        if self.workers[place].known.epoch != Some(batch.epoch) {
            self.count(Event::LateAnswersOfCommits);
            return;
        }
        let look_again = self.has(Rule::LookAgain);
        let known = &mut self.workers[place].known;
        if self.setting.rules.has(Rule::MemoryOnlyWhileOwned) {
            for (table, p, end) in &batch.ends {
                known.through[*table][*p] = *end;
            }
        }
        let mut released = Vec::new();
        for (key, parked) in changes.parked {
            let waits = parked.as_ref().filter(|p| p.reason.parent().is_some());
            if look_again && waits.is_some_and(|parked| known.can_go_on(parked)) {
                released.push(key);
            }
            known.parked[key] = parked;
        }
        let mut arrived = Vec::new();
        for (key, entry) in changes.entries {
            if known.put_entry(key, entry, now) {
                arrived.push(key);
            }
        }
        for key in arrived {
            released.extend(self.waiters(place, key));
        }
        let committed = self.has(Rule::LettersAsCommitted);
        for (key, letter) in changes.letters {
            let p = self.partition(key);
            let known = &mut self.workers[place].known;
            // What the tail has told from behind this commit is newer: another
            // owner's, while we were stopped.
            let mut ends = batch.ends.iter();
            let newer = ends.any(|(t, q, end)| (*t, *q) == (LETTERS, p) && known.told[p] > *end);
            if !(committed && newer) {
                known.letters[key] = letter;
            }
        }
        let worker = &mut self.workers[place];
        // Redo records are left to the tail: one that was written since must not
        // be forgotten with those that are done.
        for key in released {
            worker.lanes[KEYS[key].entity].released.push(key);
        }
        for (key, after) in changes.timers {
            if after == 0 {
                worker.lanes[lane].released.push(key);
            } else {
                worker.lanes[lane].timers.push((now + after, key));
            }
        }
    }
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
