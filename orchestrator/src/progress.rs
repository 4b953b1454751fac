//! What `drover run` shows while it runs: a bar an object on a terminal, plain
//! lines every few seconds elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use drover_pipeline::extract::Object;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::supervise::News;
use crate::table::fit;
use crate::view::{Model, ObjectView};

/// How often a plain line may be printed.
const PLAIN: Duration = Duration::from_secs(5);

/// How often the bars are drawn.
pub(crate) const TICK: Duration = Duration::from_millis(500);

/// The screen of a running migration, on standard error.
pub(crate) struct Screen {
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    objects: Vec<Object>,
    shown: Vec<ObjectView>,
    at: Option<Instant>,
    errors: BTreeMap<String, String>,
}

impl Screen {
    pub(crate) fn new(objects: &[Object]) -> Self {
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
            objects: objects.to_vec(),
            shown: Vec::new(),
            at: None,
            errors: BTreeMap::new(),
        }
    }

    /// A line above the bars.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            Some((all, _)) => {
                let _ = all.println(line);
            }
            None => eprintln!("{line}"),
        }
    }

    /// What became of a child.
    pub(crate) fn tell(&self, news: &News) {
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
                if let Some(why) = why {
                    self.say(&format!("{instance}: {why}"));
                }
            }
        }
    }

    /// Draws what has changed.
    pub(crate) fn update(&mut self, model: &Model) {
        for report in model.reports() {
            let Some(error) = &report.last_error else {
                continue;
            };
            if self.errors.get(&report.instance) != Some(error) {
                self.errors.insert(report.instance.clone(), error.clone());
                self.say(&format!("{}: {error}", report.instance));
            }
        }
        let now: Vec<ObjectView> = self.objects.iter().map(|o| model.object(&o.name)).collect();
        if let Some((_, bars)) = &self.bars {
            for ((bar, object), seen) in bars.iter().zip(&self.objects).zip(&now) {
                bar.set_length(object.count.unwrap_or(0).max(seen.extracted));
                bar.set_position(seen.extracted);
                bar.set_message(short(seen));
            }
            return;
        }
        if self.at.is_some_and(|at| at.elapsed() < PLAIN) {
            return;
        }
        self.at = Some(Instant::now());
        for (index, seen) in now.iter().enumerate() {
            if self.shown.get(index) != Some(seen) && (seen.extracted > 0 || seen.dead > 0) {
                eprintln!("{}", plain(seen));
            }
        }
        self.shown = now;
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

fn short(seen: &ObjectView) -> String {
    let mut text = format!("loaded {}", seen.loaded);
    if seen.parked > 0 {
        text.push_str(&format!(" parked {}", seen.parked));
    }
    if seen.dead > 0 {
        text.push_str(&format!(" dead {}", seen.dead));
    }
    fit(&text, 27)
}

fn plain(seen: &ObjectView) -> String {
    let phase = if seen.snapshot_complete {
        "following"
    } else {
        "copying"
    };
    let (object, extracted, loaded) = (&seen.object, seen.extracted, seen.loaded);
    let (parked, dead) = (seen.parked, seen.dead);
    format!("{object}: {phase}, {extracted} read, {loaded} loaded, {parked} parked, {dead} dead")
}
