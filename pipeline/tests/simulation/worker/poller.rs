//! The process, and its thread that polls: assignment, restore, reading, and what
//! a rebalance takes away.

use super::*;

impl World {
    pub(super) fn told(&mut self, worker: usize, what: impl FnOnce() -> String) {
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

    pub(super) fn synchronise(&mut self, place: usize) -> bool {
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

    pub(super) fn own(
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

    pub(super) fn read(&mut self, place: usize, choice: usize) -> bool {
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
    pub(super) fn revoke(&mut self, place: usize) {
        self.workers[place].poller = Poller::Revoking(self.now);
        self.told(place, || "hears of the rebalance".to_owned());
    }

    /// Partitions are gone: what has not finished in time is dropped.
    pub(super) fn disown(&mut self, place: usize, since: u64) -> bool {
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
}
