//! The rules, each with the change that switches it off and the test that must
//! notice. Which invariant a rule belongs to is numbered as in ARCHITECTURE.md.

/// A test by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// The package it is in.
    pub(crate) package: &'static str,
    /// Its test target; `lib` for the library's own tests.
    pub(crate) target: &'static str,
    /// Its whole name.
    pub(crate) name: &'static str,
    /// Whether it starts the programs, which are built for it then.
    pub(crate) binaries: bool,
}

/// A rule of Drover.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its name, for the command line.
    pub(crate) name: &'static str,
    /// What it is for, the invariant's number first.
    pub(crate) what: &'static str,
    /// The file in which it stands.
    pub(crate) file: &'static str,
    /// The text that makes it, found once in the file.
    pub(crate) find: &'static str,
    /// What stands there without the rule.
    pub(crate) replace: &'static str,
    /// Who must notice.
    pub(crate) test: Test,
}

const fn unit(package: &'static str, name: &'static str) -> Test {
    test(package, "lib", name)
}

const fn test(package: &'static str, target: &'static str, name: &'static str) -> Test {
    Test {
        package,
        target,
        name,
        binaries: false,
    }
}

const PIPELINE: &str = "drover-pipeline";
const SALESFORCE: &str = "drover-extractor-salesforce";
const MAPPER: &str = "drover-transformer-mapper";
const POSTGRES: &str = "drover-loader-postgres";

const JUDGE: Test = unit(
    PIPELINE,
    "idempotency::tests::the_rule_question_by_question",
);
const HISTORIES: Test = test(SALESFORCE, "histories", "no_history_loses_a_row");
const LOST_ANSWER: Test = test(
    PIPELINE,
    "stages",
    "the_whole_way_into_a_target_that_needs_pending_with_a_lost_answer",
);
const SECOND_START: Test = test(
    PIPELINE,
    "stages",
    "a_second_start_reads_its_state_and_writes_nothing_twice",
);

/// Every rule that can be switched off.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "loader-offsets-in-transaction",
        what: "1: a loader's outcome and its offsets are one transaction",
        file: "pipeline/src/load/commit.rs",
        find: "                next: offsets,",
        replace: "                next: &HashMap::new(),",
        test: SECOND_START,
    },
    Rule {
        name: "transformer-offsets-in-transaction",
        what: "1: a transformer's output and its offsets are one transaction",
        file: "pipeline/src/transform/run.rs",
        find: "                    next: &next,",
        replace: "                    next: &HashMap::new(),",
        test: SECOND_START,
    },
    Rule {
        name: "checkpoint-with-the-page",
        what: "1: a page's records and its checkpoint are one transaction",
        file: "pipeline/src/extract/run.rs",
        find: "        blocking(move || batch.write(&producer)).await?;",
        replace: "        drop((batch, producer));",
        test: SECOND_START,
    },
    Rule {
        name: "pending-before-apply",
        what: "3: what is about to be sent is known before it is sent",
        file: "pipeline/src/load/batch.rs",
        find: "            if !self.support.ordered {\n                self.commit_pending",
        replace: "            if false {\n                self.commit_pending",
        test: LOST_ANSWER,
    },
    Rule {
        name: "lease",
        what: "3: an earlier request's fate is not asked for while it may be on its way",
        file: "pipeline/src/idempotency.rs",
        find: "            Some(left) => Verdict::Wait(left),",
        replace: "            Some(_) => Verdict::Recover,",
        test: JUDGE,
    },
    Rule {
        name: "recover-before-apply",
        what: "3: what became of a lost request is asked, never hoped",
        file: "pipeline/src/idempotency.rs",
        find: "            None | Some(Duration::ZERO) => Verdict::Recover,",
        replace: "            None | Some(Duration::ZERO) => Verdict::Apply,",
        test: JUDGE,
    },
    Rule {
        name: "refusal-keeps-what-was-found",
        what: "3: a refused update does not forget a record that recovery has found",
        file: "pipeline/src/load/settle.rs",
        find: "        if target_id.is_none() || known.is_some() {",
        replace: "        if true || known.is_some() {",
        test: test(
            PIPELINE,
            "stages",
            "a_version_refused_after_a_lost_create_does_not_lead_to_a_second_create",
        ),
    },
    Rule {
        name: "partition-by-key",
        what: "4: a key has one partition, the same in every topic and for every client",
        file: "pipeline/src/topics.rs",
        find: "    let mut h: u32 = 0x9747_b28c ^",
        replace: "    let mut h: u32 = 0x9747_b28d ^",
        test: unit(PIPELINE, "topics::tests::murmur2_is_javas"),
    },
    Rule {
        name: "a-key-never-goes-backwards",
        what: "5: what is older than the known entry is dropped",
        file: "pipeline/src/idempotency.rs",
        find: "    if incoming.order < known.order {",
        replace: "    if false && incoming.order < known.order {",
        test: JUDGE,
    },
    Rule {
        name: "unchanged-by-content",
        what: "5: only equal content of the same version is passed over",
        file: "pipeline/src/idempotency.rs",
        find: "                && incoming.fingerprint == known.fingerprint =>",
        replace: "                && true =>",
        test: JUDGE,
    },
    Rule {
        name: "the-targets-own-guard",
        what: "5: a target that orders refuses an older version by itself",
        file: "loaders/postgres/src/table.rs",
        find: "t.drover_order < excluded.drover_order",
        replace: "t.drover_order IS NOT NULL",
        test: test(
            POSTGRES,
            "suite",
            "older_is_refused_where_the_target_is_ordered",
        ),
    },
    Rule {
        name: "a-bad-row-rejects-only-itself",
        what: "6: a failing record blocks only itself",
        file: "loaders/postgres/src/isolate.rs",
        find: "        if part.len() <= 1 {",
        replace: "        if true {",
        test: test(POSTGRES, "suite", "one_bad_record_rejects_only_itself"),
    },
    Rule {
        name: "required-parent-parks",
        what: "6: a child waits for a parent that it must have",
        file: "pipeline/src/load/batch.rs",
        find: "                    return Plan::Park(Reason::Parent { parent }, None);",
        replace: "                    sending.missing.push(parent);",
        test: LOST_ANSWER,
    },
    Rule {
        name: "a-link-goes-on-waiting",
        what: "6: the same record once more does not forget the link that is not yet possible",
        file: "pipeline/src/load/settle.rs",
        find: "                    if count == Count::Unchanged\n",
        replace: "                    if false && count == Count::Unchanged\n",
        test: test(
            PIPELINE,
            "stages",
            "a_link_still_waits_after_the_same_record_came_again",
        ),
    },
    Rule {
        name: "an-unknown-refusal-stops-the-lane",
        what: "7: what no rule covers is asked, not retried",
        file: "pipeline/src/error.rs",
        find: "    Refused = \"REFUSED\", Operator,",
        replace: "    Refused = \"REFUSED\", Transient,",
        test: unit(PIPELINE, "error::tests::only_what_is_listed_is_tried_again"),
    },
    Rule {
        name: "every-slot-every-time",
        what: "8: every transform yields every declared slot, filled or absent",
        file: "transformers/mapper/src/lib.rs",
        find: "                Some(reason) => Content::Absent(reason),",
        replace: "                Some(_) => continue,",
        test: test(
            MAPPER,
            "slots",
            "a_filtered_slot_is_absent_and_its_fields_stay_in_the_other",
        ),
    },
    Rule {
        name: "no-filled-field-is-lost",
        what: "8: a filled field without a mapping passes in `custom`",
        file: "transformers/mapper/src/lib.rs",
        find: "        if !slot.custom {",
        replace: "        if slot.custom {",
        test: test(MAPPER, "slots", "custom_can_be_left_out"),
    },
    Rule {
        name: "a-letter-ends-with-a-success",
        what: "8: a record that has arrived is no longer a dead letter",
        file: "pipeline/src/load/settle.rs",
        find: "            if (succeeded || parks) && self.shared",
        replace: "            if false && self.shared",
        test: test(
            PIPELINE,
            "stages",
            "a_dead_letter_is_taken_back_by_a_success_of_the_same_batch",
        ),
    },
    Rule {
        name: "position-before-the-copy",
        what: "9: changes are followed from a time before the first page",
        file: "extractors/salesforce/src/fetch.rs",
        find: "        _ if read.last => Cursor::Delta { from, round: None },",
        replace: "        _ if read.last => Cursor::Delta { from: start(api, selection).await?, round: None },",
        test: HISTORIES,
    },
    Rule {
        name: "lookback",
        what: "9: rounds overlap, since a record may show long after its stamp",
        file: "extractors/salesforce/src/cursor.rs",
        find: "            since: (until - lookback).min(covered),",
        replace: "            since: until - lookback.min(0),",
        test: HISTORIES,
    },
    Rule {
        name: "a-page-is-keyed-by-stamp-and-id",
        what: "9: equal stamps may lie on two pages",
        file: "extractors/salesforce/src/query.rs",
        find: "                format!(\"(SystemModstamp > {at} OR (SystemModstamp = {at} AND Id > '{id}'))\")",
        replace: "                let _ = id; format!(\"SystemModstamp > {at}\")",
        test: HISTORIES,
    },
    Rule {
        name: "deletes-are-read",
        what: "9: a round reads the recycle bin too",
        file: "extractors/salesforce/src/fetch.rs",
        find: "        let mut read = page(api, selection, \"/queryAll\", &soql, place).await?;",
        replace: "        let mut read = page(api, selection, \"/query\", &soql, place).await?;",
        test: HISTORIES,
    },
    Rule {
        name: "newer-fields-are-kept",
        what: "10: an entry that a newer Drover wrote keeps what we do not know",
        file: "pipeline/src/idempotency.rs",
        find: "    #[serde(flatten)]\n    pub unknown",
        replace: "    #[serde(skip)]\n    pub unknown",
        test: unit(
            PIPELINE,
            "idempotency::tests::an_entry_keeps_what_a_newer_version_wrote",
        ),
    },
    Rule {
        name: "no-secret-in-a-message",
        what: "11: a value that is wrong is not repeated in the message",
        file: "pipeline/src/config/schema.rs",
        find: "must be {wanted}, not {}\", node.kind()",
        replace: "must be {wanted}, not {}\", node.to_json()",
        test: unit(PIPELINE, "config::tests::no_secret_is_in_a_message"),
    },
];
