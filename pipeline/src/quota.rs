//! An account's quota of calls, which Drover's processes share with each other
//! and with whatever else the customer runs on it.
//!
//! A [`Meter`] stands in front of every request of a process. It knows what the
//! account has left from the answers, keeps a reserve for the customer's other
//! tools, and lets the process have its share of the rest: (left - reserve) /
//! processes that use the account. When nothing of that is left, the lanes wait,
//! and one request after each [`WAIT`] asks whether there is more again. So that
//! idle polling does not bring it that far, the meter also says how often a source
//! may be asked for changes ([`Meter::interval`]).

mod forecast;
mod pace;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use forecast::{Forecast, Range, Stretch, forecast, grouped};
use pace::Purse;
pub use pace::{Hours, Polls, SELDOMEST};

use crate::error::{Code, Error, Result};
use crate::kafka::Place;
use crate::kafka::client::Client;
use crate::kafka::compacted::{Follower, Tail};
use crate::record::Millis;
use crate::retry::{passes, patiently};
use crate::status::{INTERVAL, Phase, Report, SILENCE, Status, now};

/// How long nothing is asked of an account whose calls are used up, before one
/// request looks again. Vendors with a rolling day tell no time at which calls
/// come back.
pub const WAIT: Duration = Duration::from_secs(15 * 60);

/// How long a lane waits for another lane's request that decides for both.
const A_MOMENT: Duration = Duration::from_secs(2);

/// What a connector knows of its account's quota, whatever is left of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The account's name, the same in every process that uses it; no secret.
    pub account: String,
    /// How much of the limit stays for others, in hundredths.
    pub reserve_percent: u32,
    /// Records that one call reads, at most.
    pub records_per_call: u64,
    /// How large objects are read, where another way is taken for them.
    pub large: Option<Large>,
    /// Calls that asking an object for changes takes when there are none.
    pub calls_per_poll: u64,
}

/// How a source reads objects that are too large to be read page by page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Large {
    /// An object is large from so many records on.
    pub from: u64,
    /// Records that one call reads, at most.
    pub records_per_call: u64,
    /// Calls for each such object beside these.
    pub calls: u64,
}

/// What a process says of its account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The account's name.
    pub account: String,
    /// Calls that the account may make in a day.
    pub limit: u64,
    /// Calls it has left, as the source told last.
    pub left: u64,
    /// When the source told it, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Millis>,
    /// Calls of these that stay for the customer's other tools.
    pub reserve: u64,
    /// Calls that this process has made since it started.
    pub calls: u64,
    /// Live processes of this migration that use the account.
    pub processes: u64,
    /// Calls that this process may make of what is left.
    pub share: u64,
    /// Until when this process asks for nothing, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
    /// Records that one call reads, at most.
    #[serde(default)]
    pub records_per_call: u64,
    /// How large objects are read, where another way is taken for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large: Option<Large>,
    /// Calls that asking an object for changes takes when there are none.
    #[serde(default)]
    pub calls_per_poll: u64,
    /// How often this process asks for changes; nothing where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polls: Option<Polls>,
    /// The calls of the last day, by hours.
    #[serde(default)]
    pub hours: Hours,
}

/// What a process may still ask of its account.
pub struct Meter {
    state: Mutex<State>,
    clock: Box<dyn Fn() -> Millis + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Whether requests are held back at all; only a stage that runs does.
    guards: bool,
    terms: Terms,
    /// The limit and what is left of it.
    told: Option<(u64, u64)>,
    /// When the source told them.
    told_at: Millis,
    processes: u64,
    under_way: u64,
    calls: u64,
    hours: Hours,
    /// How many objects are asked for changes, and how often at most.
    polls: Option<(u64, Duration)>,
    until: Option<Millis>,
    /// Whether a request is under way that looks whether there is more again.
    looking: bool,
}

impl State {
    fn reserve(&self) -> u64 {
        let limit = self.told.map_or(0, |told| told.0);
        limit * u64::from(self.terms.reserve_percent) / 100
    }

    /// What this process may use; everything while nothing is known.
    fn share(&self) -> u64 {
        let Some((_, left)) = self.told else {
            return u64::MAX;
        };
        left.saturating_sub(self.reserve()) / self.processes.max(1)
    }

    /// How often each object is asked for changes.
    fn polls(&self, at: Millis) -> Option<Polls> {
        let (objects, asked) = self.polls?;
        let longest = self.told.map(|(limit, _)| {
            let purse = Purse {
                free: self.share(),
                a_day: limit.saturating_sub(self.reserve()) / self.processes.max(1),
                a_round: objects * self.terms.calls_per_poll,
            };
            purse.interval(&self.hours, at)
        });
        Some(Polls {
            objects,
            asked_ms: as_millis(asked),
            interval_ms: as_millis(longest.unwrap_or_default().max(asked)),
        })
    }
}

/// The permission for one request; it ends with the request.
pub struct Pass<'m> {
    meter: &'m Meter,
    /// Whether it looks for all whether there is more again.
    looks: bool,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.meter.lock();
        state.under_way = state.under_way.saturating_sub(1);
        state.looking &= !self.looks;
    }
}

impl Default for Meter {
    fn default() -> Self {
        Meter::with_clock(now)
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meter").field(&self.usage()).finish()
    }
}

impl Meter {
    /// A meter that goes by that clock. It counts, and holds nothing back until
    /// [`Meter::guard`].
    pub fn with_clock(clock: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Meter {
            state: Mutex::default(),
            clock: Box::new(clock),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the account; a connector does so when it is made.
    pub fn terms(&self, terms: Terms) {
        self.lock().terms = terms;
    }

    /// From now on requests beyond the share are refused.
    pub fn guard(&self) {
        self.lock().guards = true;
    }

    /// How many live processes use the account, this one among them.
    pub fn shared_by(&self, processes: u64) {
        self.lock().processes = processes;
    }

    /// Says that this process asks so many objects for changes, each every
    /// `asked` at most.
    pub fn polls(&self, objects: u64, asked: Duration) {
        self.lock().polls = Some((objects, asked));
    }

    /// How often each of the objects of [`Meter::polls`] may be asked for
    /// changes: as often as was said there, but so that the calls last.
    pub fn interval(&self) -> Duration {
        let polls = self.lock().polls((self.clock)()).unwrap_or_default();
        Duration::from_millis(polls.interval_ms)
    }

    /// Takes over the calls that the last process of this name has made; they
    /// count against the account for a day.
    pub fn go_on_from(&self, last: &Usage) {
        let mut state = self.lock();
        if state.terms.account == last.account {
            state.hours.join(&last.hours);
        }
    }

    /// Lets one request pass. [`Code::QuotaExhausted`], with the time to wait,
    /// when it would take what belongs to others.
    pub fn pass(&self) -> Result<Pass<'_>> {
        let at = (self.clock)();
        let mut state = self.lock();
        let others_look = state.looking;
        if state.guards {
            match state.until {
                Some(until) if at < until => return Err(exhausted(&state, until - at)),
                Some(_) if state.looking => return Err(exhausted(&state, millis(A_MOMENT))),
                Some(_) => state.looking = true,
                None if state.share() == 0 => {
                    state.until = Some(at + millis(WAIT));
                    return Err(exhausted(&state, millis(WAIT)));
                }
                // What is under way may take the rest of the share.
                None if state.under_way >= state.share() => {
                    return Err(exhausted(&state, millis(A_MOMENT)));
                }
                None => {}
            }
        }
        state.under_way += 1;
        state.calls += 1;
        state.hours.note(at);
        Ok(Pass {
            meter: self,
            looks: state.looking && !others_look,
        })
    }

    /// Notes what an answer said of the account.
    pub fn told(&self, limit: u64, left: u64) {
        let at = (self.clock)();
        let mut state = self.lock();
        state.told = Some((limit, left));
        state.told_at = at;
        if state.until.is_some() || state.share() == 0 {
            state.until = (state.share() == 0).then_some(at + millis(WAIT));
        }
    }

    /// The source refused a request because the account's calls are used up.
    /// Gives how long to wait; nothing where the account, as last told, has
    /// calls left: then it was another limit, and the runner's back-off decides.
    pub fn refused(&self) -> Option<Duration> {
        let at = (self.clock)();
        let mut state = self.lock();
        if !state.guards || (state.told.is_some() && state.share() > 0) {
            return None;
        }
        state.until = Some(at + millis(WAIT));
        Some(WAIT)
    }

    /// What the process says of its account; nothing while nothing is known.
    pub fn usage(&self) -> Option<Usage> {
        let at = (self.clock)();
        let state = self.lock();
        let (limit, left) = state.told?;
        Some(Usage {
            account: state.terms.account.clone(),
            limit,
            left,
            told_at: Some(state.told_at),
            reserve: state.reserve(),
            calls: state.calls,
            processes: state.processes.max(1),
            share: state.share(),
            until: state.until,
            records_per_call: state.terms.records_per_call,
            large: state.terms.large,
            calls_per_poll: state.terms.calls_per_poll,
            polls: state.polls(at),
            hours: state.hours.clone(),
        })
    }
}

fn millis(wait: Duration) -> Millis {
    wait.as_millis() as Millis
}

fn as_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For a person: until when an account is asked for nothing, and how it is noticed
/// that it has calls again.
pub fn nothing_until(until: Millis) -> String {
    let until = chrono::DateTime::from_timestamp_millis(until).unwrap_or_default();
    let until = until.format("%H:%M:%S UTC");
    format!("nothing is asked until {until}, then one call looks whether there are more")
}

fn exhausted(state: &State, wait: Millis) -> Error {
    let (limit, left) = state.told.unwrap_or_default();
    let until = state
        .until
        .map(|until| format!("; {}", nothing_until(until)));
    let until = until.unwrap_or_default();
    let share = match state.processes {
        0 | 1 => "one process of this migration uses".to_owned(),
        processes => format!("{processes} processes of this migration share"),
    };
    let message = format!(
        "{}: {} of {} calls are left, {} stay for other tools, {share} the rest{until}",
        state.terms.account,
        grouped(left),
        grouped(limit),
        grouped(state.reserve()),
    );
    Error::new(Code::QuotaExhausted, message)
        .retry_after(Duration::from_millis(wait.unsigned_abs()))
}

/// The reports of all processes, to count those that use an account.
#[derive(Debug, Default)]
struct Neighbours(Mutex<BTreeMap<String, Report>>);

impl Neighbours {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The live processes of an account at a moment, without `me`.
    fn others(&self, account: &str, me: &str, at: Millis) -> u64 {
        let reports = self.lock();
        let live = reports.values().filter(|report| {
            report.instance != me
                && !matches!(report.phase, Phase::Stopped | Phase::Standby)
                && at - report.at < millis(SILENCE)
                && report
                    .quota
                    .as_ref()
                    .is_some_and(|usage| usage.account == account)
        });
        live.count() as u64
    }
}

impl Follower for Neighbours {
    fn record(&self, _: &Place, _: i64, key: &[u8], value: Option<&[u8]>) {
        let name = String::from_utf8_lossy(key).into_owned();
        match value.and_then(|value| serde_json::from_slice(value).ok()) {
            Some(report) => self.lock().insert(name, report),
            None => self.lock().remove(&name),
        };
    }

    fn failed(&self, error: Error) {
        if !passes(&error) {
            tracing::warn!(%error, "following the reports of other processes");
        }
    }
}

/// Publishes what this process uses, and takes its share as others come and go,
/// until `stop`.
pub async fn keep_share(
    meter: Arc<Meter>,
    status: Arc<Status>,
    client: Client,
    topic: String,
    stop: CancellationToken,
) {
    let neighbours = Arc::new(Neighbours::default());
    let instance = status.report().instance;
    let mut tail = None;
    while !stop.is_cancelled() {
        if let Some(last) = status.take_last_quota() {
            meter.go_on_from(&last);
        }
        if let Some(usage) = meter.usage() {
            if tail.is_none() {
                let (client, topic) = (client.clone(), topic.clone());
                let (follower, go_on) = (Arc::clone(&neighbours), stop.clone());
                let started = tokio::task::spawn_blocking(move || {
                    let topics = [topic];
                    patiently(
                        |_| !go_on.is_cancelled(),
                        || Tail::start(&client, &topics, Arc::<Neighbours>::clone(&follower)),
                    )
                });
                tail = started.await.ok().and_then(Result::ok);
            }
            let others = neighbours.others(&usage.account, &instance, now());
            meter.shared_by(others + 1);
            status.quota(meter.usage());
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
    status.quota(meter.usage());
}

#[cfg(test)]
mod tests;
