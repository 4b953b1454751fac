//! What the readers of a process say while no broker answers: each of their polls
//! fails, several times a second, and one line says it all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;

/// How often an error that goes on is told.
const AGAIN: Duration = Duration::from_secs(30);
/// A client tries a broker again within 2 s: what is read sooner after an error
/// may have been fetched before it.
const FRESH: Duration = Duration::from_secs(3);
/// Readers of topics into which nobody writes bring nothing: without an error for
/// this long they are well.
const QUIET: Duration = Duration::from_secs(10);

/// The errors that the readers of a process meet and that pass by themselves.
#[derive(Debug, Default)]
pub struct Outage {
    /// Whether there is anything that may be over: asked after each poll.
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When an error was last told.
    told: Option<Instant>,
    /// When one was last met.
    met: Option<Instant>,
    /// Since when readers fail, where that was told.
    began: Option<Instant>,
}

impl Outage {
    /// Logs an error that passes: the first one, and then one every 30 s. What
    /// `doing` says is the line's text. Says whether it was told.
    pub fn met(&self, doing: &str, error: &Error) -> bool {
        let told = self.is_news(Instant::now());
        match told {
            true => tracing::warn!(%error, "{doing}"),
            false => tracing::debug!(%error, "{doing}"),
        }
        told
    }

    /// A poll went well; `brought` is whether it brought anything. Logs once when
    /// what was told is over.
    pub fn passed(&self, brought: bool) {
        if self.open.load(Ordering::Relaxed)
            && let Some(lasted) = self.is_over(brought, Instant::now())
        {
            tracing::info!(seconds = lasted.as_secs(), "reading goes on");
        }
    }

    fn is_news(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.met = Some(now);
        self.open.store(true, Ordering::Relaxed);
        let news = state.told.is_none_or(|told| now - told >= AGAIN);
        if news {
            state.told = Some(now);
            state.began.get_or_insert(now);
        }
        news
    }

    fn is_over(&self, brought: bool, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let since = now - state.met?;
        if since < FRESH || (!brought && since < QUIET) {
            return None;
        }
        self.open.store(false, Ordering::Relaxed);
        state.began.take().map(|began| now - began)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_then_now_and_then_and_once_when_it_is_over() {
        let outage = Outage::default();
        let began = Instant::now();
        let at = |tenths: u64| began + Duration::from_millis(100 * tenths);
        // Six times a second for a minute.
        let told = (0..600).filter(|t| outage.is_news(at(*t))).count();
        assert_eq!(told, 2);
        // Fetched before.
        assert_eq!(outage.is_over(true, at(601)), None);
        assert_eq!(outage.is_over(false, at(640)), None);
        let lasted = outage.is_over(true, at(640));
        assert_eq!(lasted, Some(Duration::from_secs(64)));
        assert_eq!(outage.is_over(true, at(641)), None, "told once");
        assert!(!outage.open.load(Ordering::Relaxed));
        // One broker of several is down: some readers fail, others go on.
        let told: Vec<u64> = (700..1300)
            .filter(|t| {
                let news = outage.is_news(at(*t));
                outage.is_over(true, at(*t));
                news
            })
            .collect();
        assert_eq!(told, [700, 1000]);
        // Nobody writes anything.
        assert_eq!(outage.is_over(false, at(1398)), None);
        assert!(outage.is_over(false, at(1399)).is_some());
    }
}
