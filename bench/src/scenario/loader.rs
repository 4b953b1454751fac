//! The loader into PostgreSQL beside a bare program that merges the same rows.

use std::time::Duration;

use drover_tests::bus::Bus;
use drover_tests::migration::Migration;
use serde_json::json;
use tokio_postgres::NoTls;

use super::Scenario;
use crate::bare::Bare;
use crate::bare::merge::Merge;
use crate::bench::{Bench, Result};
use crate::canonical;
use crate::figure::{Aim, Figure, Runs};
use crate::usage::mib;
use crate::watch::{Pace, Watch, to_its_end};

/// First load, and a second run over unchanged data.
pub const SCENARIO: Scenario = Scenario {
    name: "loader",
    about: "first load and unchanged data, beside COPY and a merge by version",
    records: 1_000_000,
    run,
};

/// Ten versions of each key.
pub const VERSIONS: Scenario = Scenario {
    name: "loader-versions",
    about: "10 versions of a tenth as many keys, beside the same",
    records: 1_000_000,
    run: run_versions,
};

/// Partitions of every data topic.
const PARTITIONS: i32 = 4;
/// Rows of a batch of the bare program.
const BATCH: u64 = 10_000;
/// Connections of the bare program.
const CONNECTIONS: usize = 2;
/// What the bare program reached elsewhere on two cores.
const REFERENCE: f64 = 160_000.0;
/// Longer than any run.
const LIMIT: Duration = Duration::from_secs(600);

/// What one side did in a round.
struct Round {
    first: Pace,
    second: Option<Pace>,
    wal: f64,
    rows: f64,
}

fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut outcomes = rounds(bench, bench.records, 1)?.into_iter();
    let (ours, bare) = (
        outcomes.next().unwrap_or_default(),
        outcomes.next().unwrap_or_default(),
    );
    let name = SCENARIO.name;
    let rates = |rounds: &[Round]| rounds.iter().map(|r| r.first.rate).collect::<Runs>();
    let cpus = |rounds: &[Round]| rounds.iter().map(|r| r.first.cpu).collect::<Runs>();
    let second = |rounds: &[Round]| {
        let paces = rounds.iter().filter_map(|r| r.second);
        paces.map(|pace| pace.rate).collect::<Runs>()
    };
    let peaks = ours.iter().map(|r| mib(r.first.peak)).collect::<Runs>();
    Ok(vec![
        weak(
            Figure::new(name, "first load, records/s", rates(&ours))
                .beside(rates(&bare))
                .aim(Aim::AtLeast(0.85)),
        ),
        Figure::new(name, "CPU s a million records", cpus(&ours)).aim(Aim::AtMost(6.0)),
        Figure::new(name, "the same, bare merge", cpus(&bare)),
        Figure::new(name, "peak memory, MiB", peaks).aim(Aim::AtMost(250.0)),
        Figure::new(name, "unchanged, records/s", second(&ours))
            .beside(second(&bare))
            .aim(Aim::AtLeast(1.0)),
        Figure::new(
            name,
            "unchanged, rows written",
            ours.iter().map(|r| r.rows).collect(),
        )
        .aim(Aim::AtMost(0.0)),
        Figure::new(
            name,
            "unchanged, MiB of WAL",
            ours.iter().map(|r| r.wal).collect(),
        )
        .aim(Aim::AtMost(1.0)),
        Figure::new(
            name,
            "the same, bare merge",
            bare.iter().map(|r| r.wal).collect(),
        ),
    ])
}

/// The first load of that many records, without a side to compare.
pub fn alone(bench: &Bench, records: u64) -> Result<Pace> {
    let mut setting = Setting::new(bench, records, 1)?;
    setting.migration.drover_ok(&["init"]);
    setting.fill(0..1)?;
    setting.load()
}

fn run_versions(bench: &Bench) -> Result<Vec<Figure>> {
    let outcomes = rounds(bench, bench.records.div_ceil(10), 10)?;
    let rates = |side: usize| {
        outcomes[side]
            .iter()
            .map(|r| r.first.rate)
            .collect::<Runs>()
    };
    let cpus = |side: usize| outcomes[side].iter().map(|r| r.first.cpu).collect::<Runs>();
    Ok(vec![
        Figure::new(VERSIONS.name, "records/s", rates(0))
            .beside(rates(1))
            .aim(Aim::AtLeast(0.85)),
        Figure::new(VERSIONS.name, "CPU s a million records", cpus(0)),
        Figure::new(VERSIONS.name, "the same, bare merge", cpus(1)),
    ])
}

fn weak(figure: Figure) -> Figure {
    let bare = figure.bare.as_ref().map_or(f64::NAN, Runs::median);
    let figure = figure.note(format!(
        "bare: COPY of {BATCH} rows into a temporary table, INSERT … ON CONFLICT DO UPDATE WHERE \
         older, {CONNECTIONS} connections; it reads no Kafka"
    ));
    if bare < REFERENCE * 0.9 {
        figure.note(format!(
            "WEAK BASELINE: the bare merge reached {bare:.0}/s, elsewhere {REFERENCE:.0}/s"
        ))
    } else {
        figure
    }
}

fn rounds(bench: &Bench, keys: u64, versions: u64) -> Result<Vec<Vec<Round>>> {
    bench.interleave(2, |side, round| {
        let setting = Setting::new(bench, keys, versions)?;
        let done = match side {
            0 => setting.ours()?,
            _ => setting.bare()?,
        };
        let name = ["ours", "bare"][side];
        let second = done.second.map_or(f64::NAN, |pace| pace.rate);
        eprintln!(
            "  round {round}: {name} {:.0}/s in {:.1?}, CPU {:.2} s a million; unchanged {second:.0}/s, \
             {:.2} MiB of WAL, {} rows",
            done.first.rate, done.first.took, done.first.cpu, done.wal, done.rows
        );
        Ok(done)
    })
}

/// An empty schema, and a migration without a record.
struct Setting {
    migration: Migration,
    bus: Bus,
    keys: u64,
    versions: u64,
    runtime: tokio::runtime::Runtime,
}

impl Setting {
    fn new(bench: &Bench, keys: u64, versions: u64) -> Result<Setting> {
        let migration = Migration::on(
            bench.services(),
            "bench",
            &["--records", "20"],
            "postgres",
            json!({}),
            json!({"kafka": {"partitions": PARTITIONS}, "objects": ["Contact"]}),
        );
        let bus = Bus::new(&migration.services().brokers, &migration.id);
        let runtime = tokio::runtime::Runtime::new()?;
        Ok(Setting {
            migration,
            bus,
            keys,
            versions,
            runtime,
        })
    }

    fn fill(&self, versions: std::ops::Range<u64>) -> Result<()> {
        let topic = self.bus.name("canonical.contact");
        let brokers = &self.migration.services().brokers;
        canonical::fill(brokers, &topic, &self.migration.id, self.keys, versions)
    }

    fn ours(mut self) -> Result<Round> {
        self.migration.drover_ok(&["init"]);
        self.fill(0..self.versions)?;
        let first = self.load()?;
        if self.versions > 1 {
            return Ok(Round::only(first));
        }
        self.quiet()?;
        let (wal, rows) = (self.wal()?, self.rows()?);
        self.fill(0..1)?;
        let second = self.load()?;
        self.quiet_stats()?;
        Ok(Round {
            first,
            second: Some(second),
            wal: (self.wal()? - wal) / f64::from(1 << 20),
            rows: self.rows()? - rows,
        })
    }

    /// Loads what is in the topic, from the first commit of this run to the end.
    fn load(&mut self) -> Result<Pace> {
        let topic = self.bus.name("canonical.contact");
        let group = self.bus.name("load.postgres");
        let watch = Watch::new(
            &self.migration.services().brokers,
            &group,
            &topic,
            PARTITIONS,
        )?;
        let (from, end) = (watch.committed()?, watch.end()?);
        self.migration.start("loader", "loader-1", &[]);
        let stage = self.migration.stage("loader-1");
        let pace = watch.pace_from(stage, from, end, LIMIT);
        self.migration.stop_all();
        pace
    }

    fn bare(self) -> Result<Round> {
        self.sql(&format!("CREATE SCHEMA {}", self.migration.schema))?;
        let first = self.merge(self.versions)?;
        if self.versions > 1 {
            return Ok(Round::only(first));
        }
        self.quiet()?;
        let wal = self.wal()?;
        let second = self.merge(self.versions)?;
        Ok(Round {
            first,
            second: Some(second),
            wal: (self.wal()? - wal) / f64::from(1 << 20),
            rows: 0.0,
        })
    }

    fn merge(&self, versions: u64) -> Result<Pace> {
        let mut merge = Bare::Merge(Merge {
            url: self.migration.services().postgres.clone(),
            table: format!("{}.contact", self.migration.schema),
            keys: self.keys,
            versions,
            batch: BATCH,
            connections: CONNECTIONS,
        })
        .start()?;
        to_its_end(&mut merge, self.keys * versions, LIMIT)
    }

    /// Leaves nothing that writes WAL by itself a while later.
    fn quiet(&self) -> Result<()> {
        self.sql(&format!("VACUUM ANALYZE {}.contact", self.migration.schema))?;
        self.sql("CHECKPOINT")
    }

    /// Waits until the counters have what closed sessions did: they tell it at
    /// their end, and that has come when none is left.
    fn quiet_stats(&self) -> Result<()> {
        while self.number(
            "SELECT count(*)::float8 FROM pg_stat_activity WHERE backend_type = 'client backend'",
        )? > 1.0
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn wal(&self) -> Result<f64> {
        self.number("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
    }

    fn rows(&self) -> Result<f64> {
        self.number(&format!(
            "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del)::float8 FROM pg_stat_user_tables \
             WHERE schemaname = '{}'",
            self.migration.schema
        ))
    }

    fn sql(&self, sql: &str) -> Result<()> {
        let url = &self.migration.services().postgres;
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            Ok(client.batch_execute(sql).await?)
        })
    }

    fn number(&self, sql: &str) -> Result<f64> {
        let url = &self.migration.services().postgres;
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            Ok(client.query_one(sql, &[]).await?.try_get(0)?)
        })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = self.sql(&format!(
            "DROP SCHEMA IF EXISTS {} CASCADE",
            self.migration.schema
        ));
        for topic in ["canonical.contact", "idempotency.postgres"] {
            if self.bus.exists(topic) {
                self.runtime.block_on(self.bus.delete(topic));
            }
        }
    }
}

impl Round {
    fn only(first: Pace) -> Round {
        Round {
            first,
            second: None,
            wal: 0.0,
            rows: 0.0,
        }
    }
}
