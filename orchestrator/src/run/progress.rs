//! What `drover run` shows while it runs: a bar an object on a terminal, one
//! line every few seconds elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use drover_pipeline::Code;
use drover_pipeline::clock::now;
use drover_pipeline::control::Plan;
use drover_pipeline::extract::Object;
use drover_pipeline::record::Millis;
use drover_pipeline::status::Phase;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::tell;
use crate::outages::Outages;
use crate::table::{WIDTH, counted, fit};
use crate::view::{Model, ObjectView};

use super::supervise::News;

/// How often a plain line may be printed.
const PLAIN: Duration = Duration::from_secs(5);

/// A stage may notice that Kafka is away so much sooner than we do.
const SOONER: Millis = 60_000;

/// How many errors of a process are remembered.
const MOST_TOLD: usize = 100;

/// How often the bars are drawn.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// The screen of a running migration, on standard error.
pub(crate) struct Screen {
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    objects: Vec<Object>,
    /// By object, how many canonical records each of its records gives.
    slots: Vec<u64>,
    /// Nothing is loaded: a 0 would look as if that had failed.
    dry_run: bool,
    shown: Vec<ObjectView>,
    /// Whether everything that had been read was through once, or all objects were
    /// copied when this run began: then nothing is copied any more.
    through: bool,
    /// Whether the migration was seen as it stands, and not on the way there.
    current: bool,
    at: Option<Instant>,
    /// By process, what it was told to have met: one that can't work ends by the same
    /// error, is started again, and meets it again.
    errors: BTreeMap<String, BTreeSet<String>>,
    /// What a process said before this run is no news.
    began: Millis,
    /// When it was last said that Kafka is away.
    away: Option<Millis>,
    /// What of the other services is away.
    outages: Outages,
}

impl Screen {
    pub(crate) fn new(plan: &Plan, dry_run: bool) -> Self {
        let objects = &plan.objects;
        let slots = |object| plan.mapping.of(object).map_or(0, |rules| rules.slots.len());
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let bars = objects.iter().map(|object| {
                let bar = all.add(ProgressBar::new(object.count.unwrap_or(0)));
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix:16} {bar:14} {pos:>9}/{len:<9} {msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(fit(&object.name, 16));
                bar
            });
            let bars = bars.collect();
            (all, bars)
        });
        Screen {
            bars,
            objects: objects.clone(),
            slots: objects.iter().map(|o| slots(o) as u64).collect(),
            dry_run,
            shown: Vec::new(),
            through: false,
            current: false,
            at: None,
            errors: BTreeMap::new(),
            began: now(),
            away: None,
            outages: Outages::default(),
        }
    }

    /// A line above the bars.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            Some((all, _)) => {
                let _ = all.println(line);
            }
            None => tell(line),
        }
    }

    /// Says that Kafka is away. The stages meet it too, and their reports come when
    /// it is back: then it is no news.
    pub(crate) fn away(&mut self, line: &str) {
        self.say(line);
        self.away = Some(now());
    }

    /// Whether an error of a stage, met at that time, is one that was told already.
    fn is_told(&self, error: &str, at: Option<Millis>) -> bool {
        let of_kafka = error.starts_with(Code::BrokerUnreachable.as_str());
        of_kafka && self.away.is_some_and(|away| at >= Some(away - SOONER))
    }

    /// Whether nobody was told yet that the process met this.
    fn is_news(&mut self, instance: &str, error: &str) -> bool {
        let told = self.errors.entry(instance.to_owned()).or_default();
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        told.insert(error.to_owned())
    }

    /// What became of a child.
    pub(crate) fn tell(&mut self, news: &News) {
        match news {
            News::Started {
                instance,
                pid,
                http,
            } => {
                self.say(&format!("{instance}: started, pid {pid}, http {http}"));
            }
            News::Failed {
                instance,
                how,
                why,
                again_in,
            } => {
                let when = match again_in.as_secs() {
                    0 => "now".to_owned(),
                    seconds => format!("in {seconds} s"),
                };
                self.say(&format!("{instance}: ended ({how}); starts again {when}"));
                if let Some(why) = why.as_ref().map(ToString::to_string)
                    && self.is_news(instance, &why)
                {
                    self.say(&format!("{instance}: {why}"));
                }
            }
        }
    }

    /// What the processes meet, and nobody was told yet.
    fn met(&mut self, model: &Model) -> Vec<String> {
        let mut lines = Vec::new();
        for report in model.reports() {
            if report.at >= self.began
                && let Some(line) = self.outages.look(report, now(), Instant::now())
            {
                lines.push(line);
            }
            // Several lanes may stop between two reports; the last error is of one.
            let blocked = report.lanes.values();
            let blocked = blocked.filter(|lane| lane.phase == Phase::Blocked);
            for error in blocked.filter_map(|lane| lane.error.as_ref()) {
                if report.at >= self.began && self.is_news(&report.instance, error) {
                    lines.push(format!("{}: {error}", report.instance));
                }
            }
            let Some(error) = &report.last_error else {
                continue;
            };
            let at = report.last_error_at;
            let told = self.outages.is_told(&report.instance, error, at);
            if at < Some(self.began) || told || self.is_told(error, at) {
                continue;
            }
            if self.is_news(&report.instance, error) {
                lines.push(format!("{}: {error}", report.instance));
            }
        }
        lines
    }

    /// Draws what has changed. Until the model `is_current` it only tells what the
    /// processes meet: its figures would be those of long ago, counted up again.
    pub(crate) fn update(&mut self, model: &Model, is_current: bool) {
        for line in self.met(model) {
            self.say(&line);
        }
        if !self.current && !is_current {
            return;
        }
        let now: Vec<ObjectView> = self.objects.iter().map(|o| model.object(&o.name)).collect();
        self.through |= self.is_following(&now);
        self.current = true;
        if let Some((_, bars)) = &self.bars {
            for ((bar, object), seen) in bars.iter().zip(&self.objects).zip(&now) {
                bar.set_length(object.count.unwrap_or(0).max(seen.extracted));
                bar.set_position(seen.extracted);
                bar.set_message(short(seen, self.dry_run));
            }
            return;
        }
        if self.at.is_some_and(|at| at.elapsed() < PLAIN) {
            return;
        }
        self.at = Some(Instant::now());
        if self.shown != now {
            tell(plain(&now, self.through, self.dry_run));
            self.shown = now;
        }
    }

    /// Whether the first copy is behind the migration, as it stands now.
    fn is_following(&self, now: &[ObjectView]) -> bool {
        let mut copied = now.iter();
        let copied = copied.all(|seen| seen.snapshot_complete);
        // An earlier run has read all of it. Whether all of that is through can't be
        // told by counts, as edits were read since; the line has what is loaded.
        copied && !self.current || now.iter().zip(&self.slots).all(is_through)
    }

    /// Takes the bars away; what follows is printed plainly.
    pub(crate) fn end(&mut self) {
        if let Some((all, bars)) = self.bars.take() {
            for bar in bars {
                bar.finish();
            }
            drop(all);
        }
    }
}

fn short(seen: &ObjectView, dry_run: bool) -> String {
    let mut text = match dry_run {
        true => format!("mapped {}", seen.mapped),
        false => format!("loaded {}", seen.loaded),
    };
    if seen.parked > 0 {
        text.push_str(&format!(" parked {}", seen.parked));
    }
    if seen.dead > 0 {
        text.push_str(&format!(" dead {}", seen.dead));
    }
    fit(&text, 27)
}

/// Whether as many canonical records are somewhere as the records that were read
/// give. People edit, and each edit counts as read again: it is asked for once.
fn is_through((seen, slots): (&ObjectView, &u64)) -> bool {
    let settled = seen.loaded + seen.absent + seen.parked + seen.dead;
    seen.snapshot_complete && settled >= seen.extracted * slots
}

/// One line for all objects; those that are still copied by name.
fn plain(now: &[ObjectView], through: bool, dry_run: bool) -> String {
    let sum = |count: fn(&ObjectView) -> u64| now.iter().map(count).sum::<u64>();
    let copying: Vec<&str> = now
        .iter()
        .filter(|seen| !seen.snapshot_complete)
        .map(|seen| seen.object.as_str())
        .collect();
    let objects = counted(now.len() as u64, "object", "objects");
    let phase = match copying.len() {
        0 if through => format!("following {objects}"),
        left => format!("copied {} of {objects}", now.len() - left),
    };
    let (read, dead) = (sum(|seen| seen.extracted), sum(|seen| seen.dead));
    let mut text = match dry_run {
        true => {
            let mapped = sum(|seen| seen.mapped);
            format!("dry run, {phase}: {read} read, {mapped} mapped, {dead} dead")
        }
        false => format!(
            "{phase}: {read} read, {} loaded, {} parked, {dead} dead",
            sum(|seen| seen.loaded),
            sum(|seen| seen.parked),
        ),
    };
    // What stands behind a lane that has stopped is in none of these numbers.
    let lag = sum(|seen| seen.lag.records);
    if through && lag > 0 {
        text.push_str(&format!("; lag {lag}"));
    }
    if !copying.is_empty() {
        text.push_str(&format!("; left: {}", copying.join(", ")));
    }
    fit(&text, WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_tells_of_all_objects_and_names_what_is_left() {
        let seen = |object: &str, snapshot_complete| ObjectView {
            object: object.to_owned(),
            extracted: 10,
            mapped: 9,
            loaded: 7,
            parked: 2,
            dead: 1,
            snapshot_complete,
            ..ObjectView::default()
        };
        assert_eq!(
            plain(
                &[seen("Account", true), seen("Contact", false)],
                false,
                false
            ),
            "copied 1 of 2 objects: 20 read, 14 loaded, 4 parked, 2 dead; left: Contact"
        );
        assert_eq!(
            plain(&[seen("Account", true)], true, false),
            "following 1 object: 10 read, 7 loaded, 2 parked, 1 dead"
        );
        let mut behind = seen("Account", true);
        behind.lag.records = 319;
        assert_eq!(
            plain(&[behind], true, false),
            "following 1 object: 10 read, 7 loaded, 2 parked, 1 dead; lag 319"
        );
        assert_eq!(
            plain(&[seen("Account", true)], true, true),
            "dry run, following 1 object: 10 read, 9 mapped, 1 dead"
        );
        let many = vec![seen("AnObjectWithALongName__c", false); 9];
        assert_eq!(plain(&many, false, false).chars().count(), WIDTH);
        // All is read, and hardly anything loaded.
        let begun = ObjectView {
            loaded: 2,
            parked: 0,
            dead: 0,
            ..seen("Account", true)
        };
        assert!(is_through((&seen("Account", true), &1)));
        assert!(!is_through((&seen("Account", true), &2)), "two slots");
        assert!(!is_through((&begun, &1)));
        assert_eq!(
            plain(&[begun], false, false),
            "copied 1 of 1 object: 10 read, 2 loaded, 0 parked, 0 dead"
        );
    }

    #[test]
    fn a_run_that_goes_on_does_not_say_that_it_copies() {
        use crate::view::Table;

        let plan = Plan {
            objects: vec![Object {
                name: "Contact".to_owned(),
                ..Object::default()
            }],
            ..Plan::default()
        };
        let model = |copied: bool| {
            let mut model = Model::default();
            // Edited since: more was read than there are records.
            let checkpoint = serde_json::json!({
                "cursor": null, "phase": "DELTA", "snapshotComplete": copied, "extracted": 9,
                "asOf": 1, "at": 1,
            });
            let value = checkpoint.to_string();
            model.apply(Table::Checkpoint, b"s/Contact", Some(value.as_bytes()));
            model
        };
        let screen = || {
            let mut screen = Screen::new(&plan, false);
            (screen.bars, screen.slots) = (None, vec![1]);
            screen
        };
        // What was read so far says nothing.
        let mut again = screen();
        again.update(&model(false), false);
        assert!(again.at.is_none() && !again.current, "nothing is drawn");
        again.update(&model(true), true);
        assert!(again.through && again.at.is_some());
        let mut first = screen();
        first.update(&model(false), true);
        first.update(&model(true), true);
        assert!(!first.through, "all is read, and nothing loaded");
    }

    #[test]
    fn every_lane_that_stops_is_told_and_the_same_error_once() {
        use drover_pipeline::spec::Stage;
        use drover_pipeline::status::{Lane, Status};

        let mut screen = Screen::new(&Plan::default(), false);
        let status = Status::new(Stage::Extractor, "x", "extractor-1", "").expect("a status");
        let mut report = status.report();
        for (lane, error) in [
            ("a", "FORBIDDEN: a"),
            ("b", "FORBIDDEN: b"),
            ("c", "FORBIDDEN: b"),
        ] {
            let standing = Lane {
                phase: Phase::Blocked,
                error: Some(error.to_owned()),
                until: None,
                waits_for: None,
                seen: None,
            };
            report.lanes.insert(lane.to_owned(), standing);
        }
        report.last_error = Some("FORBIDDEN: b".to_owned());
        report.last_error_at = Some(report.at);
        let mut told = |report: &drover_pipeline::status::Report| {
            let mut model = Model::default();
            let json = serde_json::to_vec(report).expect("serialises");
            model.apply(crate::view::Table::Status, b"extractor-1", Some(&json));
            screen.met(&model)
        };
        let news = ["extractor-1: FORBIDDEN: a", "extractor-1: FORBIDDEN: b"];
        assert_eq!(told(&report), news);
        assert!(told(&report).is_empty(), "it is no news any more");
    }

    #[test]
    fn a_stage_does_not_tell_again_that_kafka_is_away() {
        let mut screen = Screen::new(&Plan::default(), false);
        assert!(screen.is_news("loader-1", "REFUSED: no") && screen.is_news("loader-1", "other"));
        assert!(
            !screen.is_news("loader-1", "REFUSED: no"),
            "met again after a restart"
        );
        assert!(screen.is_news("loader-2", "REFUSED: no"));
        let error = "BROKER_UNREACHABLE: reading: Kafka at k:9 does not answer";
        assert!(!screen.is_told(error, Some(now())), "nobody has said it");
        screen.away("BROKER_UNREACHABLE: reading the state of the migration");
        assert!(screen.is_told(error, Some(now())));
        assert!(!screen.is_told("FENCED: another one", Some(now())));
        assert!(!screen.is_told(error, screen.away.map(|at| at - SOONER - 1)));
    }
}
