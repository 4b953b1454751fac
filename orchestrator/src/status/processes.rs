//! The processes of a migration, and what is wrong with them.

use drover_pipeline::record::Millis;
use drover_pipeline::status::Phase;

use crate::outages::next_try;
use crate::table::{Column, counted, seconds, table, wrap};
use crate::view::{ProcessView, View};
use crate::when;

/// How long a process that has ended is shown, and an error that is over.
const ENDED: u64 = 600;

/// The table, and below it what is wrong.
pub(super) fn processes(view: &View) -> (String, String) {
    if view.processes.is_empty() {
        let text = "no process has reported; start them by `drover run`\n";
        return (text.to_owned(), String::new());
    }
    // What has ended long ago helps nobody to see what runs.
    let is_old = |p: &&ProcessView| !p.alive && when::age(p.at, view.at) > ENDED;
    let (old, shown): (Vec<&ProcessView>, Vec<_>) = view.processes.iter().partition(is_old);
    let columns = [
        Column::Text("PROCESS"),
        Column::Text("INSTANCE"),
        Column::Number("PID"),
        Column::Text("ALIVE"),
        Column::Text("PHASE"),
        Column::Number("REPORTED"),
    ];
    let rows: Vec<Vec<String>> = shown
        .iter()
        .map(|process| {
            let ago = when::age(process.at, view.at);
            vec![
                process.name.clone(),
                process.instance.clone(),
                process.pid.to_string(),
                if process.alive { "yes" } else { "no" }.to_owned(),
                phase(process).to_owned(),
                format!("{} ago", seconds(Some(ago))),
            ]
        })
        .collect();
    let mut text = match shown.is_empty() {
        true => "no process runs; start them by `drover run`\n".to_owned(),
        false => table(&columns, &rows),
    };
    if !old.is_empty() {
        let old = counted(old.len() as u64, "process", "processes");
        text.push_str(&format!(
            "{old} not heard of for 10 minutes; `--format json` has a day's\n"
        ));
    }
    let mut said = Said::default();
    let mut wrong = String::new();
    for process in &shown {
        wrong.push_str(&lanes(process, view.at, &mut said));
    }
    for process in &shown {
        wrong.push_str(&last_error(process, view, &mut said));
    }
    (text, wrong)
}

fn phase(process: &ProcessView) -> &'static str {
    match (process.alive, process.phase) {
        (true, phase) => phase.as_str(),
        (false, Phase::Stopped) if process.failed => "failed",
        (false, Phase::Stopped) => "ended",
        (false, _) => "silent",
    }
}

/// What was said, and by whom: a refused login blocks every lane in the same words,
/// and an altered table every loader.
#[derive(Default)]
struct Said {
    /// Texts, and the heading under which each stands.
    texts: Vec<(String, String)>,
    last: usize,
}

impl Said {
    /// The text below that heading, or where it stands already.
    fn say(&mut self, heading: String, text: &str) -> String {
        match self.texts.iter().position(|(said, _)| said == text) {
            Some(at) if at == self.last => format!("\n{heading}: the same\n"),
            Some(at) => {
                let line = format!("{heading}: the same as {}", self.texts[at].1);
                self.last = at;
                format!("\n{}", wrap(&line, ""))
            }
            None => {
                let shown = format!("\n{heading}:\n{}", wrap(text, "  "));
                self.last = self.texts.len();
                self.texts.push((text.to_owned(), heading));
                shown
            }
        }
    }
}

/// The lanes of a living process that do not simply run.
fn lanes(process: &ProcessView, at: Millis, said: &mut Said) -> String {
    let mut text = String::new();
    for (lane, standing) in process.lanes.iter().filter(|_| process.alive) {
        let why = standing.waits_for.as_ref().or(standing.error.as_ref());
        let why = why.map_or("", String::as_str);
        let what = match (&standing.waits_for, next_try(standing.until, at)) {
            (Some(_), _) => "waits".to_owned(),
            (None, Some(next)) => format!("{}, {next}", standing.phase.as_str()),
            (None, None) => standing.phase.as_str().to_owned(),
        };
        text += &said.say(format!("{}, lane {lane} ({what})", process.instance), why);
    }
    text
}

/// The last error of a process, unless a lane has just said it.
fn last_error(process: &ProcessView, view: &View, said: &mut Said) -> String {
    let Some(error) = &process.last_error else {
        return String::new();
    };
    let is_same = |lane: &drover_pipeline::status::Lane| lane.error.as_ref() == Some(error);
    if process.alive && process.lanes.values().any(is_same) {
        return String::new();
    }
    let age = process.last_error_at.map(|at| when::age(at, view.at));
    let ago = age.map(|age| format!("{} ago", seconds(Some(age))));
    let instance = &process.instance;
    if process.last_error_over {
        if age.is_some_and(|age| age > ENDED) {
            return String::new();
        }
        let code = error.split(':').next().unwrap_or_default();
        let ago = ago.unwrap_or_default();
        let since = match process.alive {
            true => "has run on since",
            false => "ran on until it was told to end",
        };
        let line = format!("{instance} met {code} {ago}, and {since}");
        return format!("\n{}", wrap(&line, ""));
    }
    let what = match process.failed && !process.alive {
        true => "ended by",
        false => "last error",
    };
    let ago = ago.map(|ago| format!(", {ago}")).unwrap_or_default();
    let next = next_try(process.until, view.at).filter(|_| process.alive);
    let next = next.map(|next| format!(", {next}")).unwrap_or_default();
    said.say(format!("{instance}, {what}{ago}{next}"), error)
}

#[cfg(test)]
mod tests {
    use drover_pipeline::status::Lane;

    use super::super::tests::example;
    use super::*;

    fn with(change: impl FnOnce(&mut ProcessView)) -> (String, String) {
        let mut view = example();
        view.at = 600_000;
        let process = &mut view.processes[0];
        process.instance = "loader-1".into();
        process.phase = Phase::Running;
        process.at = view.at;
        process.lanes.clear();
        process.last_error = Some("FENCED: another one took over; wait".into());
        process.last_error_at = Some(60_000);
        change(process);
        processes(&view)
    }

    #[test]
    fn an_error_that_is_over_is_one_line_and_soon_none() {
        let (_, text) = with(|process| process.last_error_over = true);
        assert_eq!(text, "\nloader-1 met FENCED 9m ago, and has run on since\n");
        let (_, text) = with(|process| {
            process.last_error_over = true;
            process.last_error_at = Some(-60_000);
        });
        assert_eq!(text, "");
        let (_, text) = with(|process| {
            process.last_error_over = true;
            process.alive = false;
            process.phase = Phase::Stopped;
        });
        let told = "\nloader-1 met FENCED 9m ago, and ran on until it was told to end\n";
        assert_eq!(text, told);
        let (_, text) = with(|process| process.phase = Phase::Starting);
        assert!(
            text.starts_with("\nloader-1, last error, 9m ago:\n  FENCED: another"),
            "{text}"
        );
    }

    #[test]
    fn a_blocked_lane_is_told_once() {
        let refused = "UNAUTHORIZED: the login is refused; renew the credentials";
        let (_, text) = with(|process| {
            process.phase = Phase::Blocked;
            process.last_error = Some(refused.into());
            for lane in ["Account", "Contact"] {
                let standing = Lane {
                    phase: Phase::Blocked,
                    error: Some(refused.into()),
                    until: None,
                    waits_for: None,
                    seen: None,
                };
                process.lanes.insert(lane.into(), standing);
            }
        });
        assert_eq!(text.matches("UNAUTHORIZED").count(), 1, "{text}");
        assert!(
            text.ends_with("\nloader-1, lane Contact (blocked): the same\n"),
            "{text}"
        );
    }

    #[test]
    fn what_several_processes_met_is_said_once() {
        let mut view = example();
        let altered = "TARGET_ALTERED: a column is gone; ALTER TABLE deal ADD COLUMN amount text";
        let example = view.processes[0].clone();
        let ended = |instance: &str| ProcessView {
            instance: instance.to_owned(),
            phase: Phase::Stopped,
            alive: false,
            failed: true,
            last_error: Some(altered.to_owned()),
            last_error_at: Some(view.at),
            at: view.at,
            ..example.clone()
        };
        view.processes = ["loader-1", "loader-2", "loader-3"].map(ended).into();
        view.processes[2].alive = true;
        view.processes[2].phase = Phase::Blocked;
        for (lane, error) in [
            ("a", "FORBIDDEN: no"),
            ("deal", altered),
            ("e", "FORBIDDEN: no"),
        ] {
            let standing = Lane {
                phase: Phase::Blocked,
                error: Some(error.to_owned()),
                until: None,
                waits_for: None,
                seen: None,
            };
            view.processes[2].lanes.insert(lane.to_owned(), standing);
        }
        view.processes[2].lanes.remove("Contact");
        let (_, text) = processes(&view);
        assert_eq!(text.matches("ALTER TABLE").count(), 1, "{text}");
        for told in [
            "loader-3, lane e (blocked): the same as loader-3, lane a (blocked)\n",
            "loader-1, ended by, 0s ago: the same as loader-3, lane deal (blocked)\n",
            "loader-2, ended by, 0s ago: the same\n",
        ] {
            assert!(text.contains(told), "no {told}: {text}");
        }
    }

    #[test]
    fn what_is_tried_again_says_when() {
        let away = "TARGET_UNAVAILABLE: it does not answer; Drover keeps trying";
        let standing = |until: Millis| {
            with(|process| {
                process.last_error = Some(away.into());
                let standing = Lane {
                    phase: Phase::Degraded,
                    error: Some(away.into()),
                    until: Some(until),
                    waits_for: None,
                    seen: None,
                };
                process.lanes.insert("company".into(), standing);
            })
        };
        let title = |text: &str| format!("\nloader-1, lane company ({text}):\n  TARGET_UN");
        let (_, text) = standing(612_500);
        assert!(
            text.starts_with(&title("degraded, next try in 12s")),
            "{text}"
        );
        let (_, text) = standing(600_400);
        assert!(text.starts_with(&title("degraded")), "now: {text}");
        // At its start a process has no lanes.
        let (_, text) = with(|process| {
            process.phase = Phase::Starting;
            process.until = Some(605_000);
        });
        assert!(
            text.starts_with("\nloader-1, last error, 9m ago, next try in 5s:\n  FENCED"),
            "{text}"
        );
    }

    #[test]
    fn who_ended_by_an_error_says_so_and_who_was_told_to_end_does_not() {
        let ended = |failed| {
            with(|process| {
                process.alive = false;
                process.phase = Phase::Stopped;
                process.failed = failed;
                process.last_error = failed.then(|| "REFUSED: no".into());
            })
        };
        let (table, text) = ended(true);
        assert!(table.contains(" failed "), "{table}");
        assert_eq!(text, "\nloader-1, ended by, 9m ago:\n  REFUSED: no\n");
        let (table, text) = ended(false);
        assert!(table.contains(" ended "), "{table}");
        assert_eq!(text, "");
    }
}
