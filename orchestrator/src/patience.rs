//! What is said while something is away that a command waits for: at once, then
//! now and then with how long it has lasted, and when it is over.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::table::seconds;

/// How often it is said that something is still waited for.
pub(crate) const STILL: Duration = Duration::from_secs(30);

/// What is waited for, if anything is.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<Wait>);

#[derive(Debug)]
struct Wait {
    /// Of what was said of it. The rest of a text may change with every try.
    codes: BTreeSet<String>,
    began: Instant,
    said: Instant,
}

impl Patience {
    /// It is still away; the line to say, if one is due.
    pub(crate) fn still(&mut self, text: &str, now: Instant) -> Option<String> {
        let code = text.split(':').next().unwrap_or_default();
        match &mut self.0 {
            None => {
                self.0 = Some(Wait {
                    codes: BTreeSet::from([code.to_owned()]),
                    began: now,
                    said: now,
                });
                Some(text.to_owned())
            }
            Some(wait) if !wait.codes.contains(code) => {
                wait.codes.insert(code.to_owned());
                wait.said = now;
                Some(text.to_owned())
            }
            Some(wait) if now - wait.said >= STILL => {
                wait.said = now;
                let lasted = seconds(Some((now - wait.began).as_secs()));
                Some(format!("still, after {lasted}: {text}"))
            }
            Some(_) => None,
        }
    }

    /// It is there; how long it was away, if that was said.
    pub(crate) fn over(&mut self, now: Instant) -> Option<String> {
        let wait = self.0.take()?;
        Some(seconds(Some((now - wait.began).as_secs())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_said_again_and_so_is_its_end() {
        let mut patience = Patience::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(patience.over(at(0)), None);
        let away = "BROKER_UNREACHABLE: Kafka does not answer (refused)";
        assert_eq!(patience.still(away, at(0)).as_deref(), Some(away));
        // The same in other words.
        let other = "BROKER_UNREACHABLE: Kafka does not answer (timed out)";
        let told: Vec<(u64, String)> = (1..100)
            .filter_map(|second| Some((second, patience.still(other, at(second))?)))
            .collect();
        let line = |lasted: &str| format!("still, after {lasted}: {other}");
        assert_eq!(
            told,
            [(30, line("30s")), (60, line("60s")), (90, line("90s"))]
        );
        let news = "CONNECTION: the source does not answer";
        assert_eq!(patience.still(news, at(100)).as_deref(), Some(news));
        assert_eq!(patience.over(at(125)).as_deref(), Some("2m"));
        assert_eq!(patience.over(at(126)), None, "said once");
        assert_eq!(patience.still(away, at(200)).as_deref(), Some(away));
    }
}
