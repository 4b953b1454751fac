//! Requests to the target, and their answers.

use super::*;

impl World {
    /// The beginning of a round of `send`: Pending for what is open, where the
    /// target needs it.
    pub(super) fn begin_sending(&mut self, place: usize, batch: &mut Batch) {
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

    pub(super) fn send(&mut self, place: usize, lane: usize, batch: &mut Batch) -> Step {
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
    pub(super) fn collect(&mut self, place: usize, batch: &mut Batch) -> Step {
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
}
