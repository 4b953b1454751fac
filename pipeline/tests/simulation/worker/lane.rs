//! A lane: takes a batch, judges it, and plans what is to be done about each record.

use super::*;

impl World {
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

    pub(super) fn forget(&mut self, place: usize, batch: &Batch) {
        let process = self.workers[place].process;
        for request in &mut self.requests {
            let (worker, p, _, number, _) = request.sender;
            if (worker, p, number) == (place, process, batch.number) {
                request.awaited = false;
            }
        }
    }

    pub(super) fn take(&mut self, place: usize, lane: usize) -> bool {
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
    pub(super) fn judge(&mut self, place: usize, batch: &mut Batch) {
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

    pub(super) fn plan(&mut self, place: usize, work: &Work) -> Plan {
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

    pub(super) fn sending(
        &self,
        place: usize,
        work: &Work,
        entry: Option<Entry>,
        recover: bool,
    ) -> Plan {
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
    pub(super) fn recover(&mut self, batch: &mut Batch) {
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
}
