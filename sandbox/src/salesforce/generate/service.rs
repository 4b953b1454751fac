//! What happens around the records: comments, e-mails, tasks, events, history.

use rand::Rng;

use super::maker::{Maker, Times};
use crate::salesforce::id::Id;
use crate::salesforce::moment::{self, DAY, HOUR, MINUTE};
use crate::salesforce::people::{self, Fields};
use crate::salesforce::store::Store;
use crate::salesforce::words::{self, FIRST, LAST, SUBJECT, one};

/// Done tasks that are older are archived: only `queryAll` shows them.
const ARCHIVED_AFTER: moment::Millis = 400 * DAY;

impl Maker {
    /// The values of such a record, true if the object is one of these.
    pub fn service(
        &mut self,
        store: &Store,
        fields: &mut Fields<'_>,
        name: &str,
        number: u64,
        times: &Times,
    ) -> bool {
        match name {
            "CaseComment" => {
                let case = self.present(store, "Case");
                fields.id("ParentId", case);
                let sentences = self.rng.random_range(1..8);
                fields.text("CommentBody", &words::text(&mut self.rng, sentences));
                fields.json("IsPublished", self.rng.random_bool(0.4).to_string());
            }
            "EmailMessage" => self.email(store, fields, number, times),
            "Task" => self.task(store, fields, times),
            "Event" => self.event(store, fields, number, times),
            "CaseHistory" => {
                let case = self.present(store, "Case");
                fields.id("CaseId", case);
                let created = self.rng.random_bool(0.3);
                fields.text("Field", if created { "created" } else { "Status" });
                fields.text("DataType", "Text");
                if !created {
                    fields.text("OldValue", "New");
                    fields.text("NewValue", one(&mut self.rng, &["Working", "Closed"]));
                }
            }
            _ => return false,
        }
        true
    }

    fn email(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64, times: &Times) {
        let case = self.present(store, "Case");
        let rng = &mut self.rng;
        let incoming = rng.random_bool(0.6);
        fields.id("ParentId", case);
        fields.id("RelatedToId", case);
        let (first, last) = (one(rng, &FIRST), one(rng, &LAST));
        let address = people::email(rng, first, last, number);
        let ours = "support@example.com".to_owned();
        let (from, to) = if incoming {
            (&address, &ours)
        } else {
            (&ours, &address)
        };
        fields.text("FromAddress", from);
        fields.text("ToAddress", to);
        let name = format!("{first} {last}");
        fields.text("FromName", if incoming { &name } else { "Support" });
        if rng.random_bool(0.2) {
            fields.text("CcAddress", "a@example.com; b@example.org");
        }
        let text = words::text(rng, 6);
        fields.text("Subject", &format!("Re: {}", one(rng, &SUBJECT)));
        fields.text("TextBody", &text);
        if rng.random_bool(0.7) {
            let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
            let html = format!(
                "<html><body><p style=\"color:#333\">{}</p></body></html>",
                escaped.replace("\r\n", "<br>").replace('\n', "<br/>")
            );
            fields.text("HtmlBody", &html);
        }
        fields.json("Incoming", incoming.to_string());
        fields.text(
            "Status",
            if incoming {
                one(rng, &["0", "1", "2"])
            } else {
                "3"
            },
        );
        fields.text("MessageDate", &moment::print(times.created));
        fields.text(
            "MessageIdentifier",
            &format!("<{number}.x@mail.example.com>"),
        );
        fields.text(
            "ThreadIdentifier",
            &format!("<t{}@mail.example.com>", number / 3),
        );
        fields.json("HasAttachment", number.is_multiple_of(10).to_string());
        fields.json("IsExternallyVisible", "true");
        fields.json("IsClientManaged", "false");
    }

    /// Who and about what: a lead stands alone.
    fn about(&mut self, store: &Store, fields: &mut Fields<'_>) {
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let lead = self.present(store, "Lead");
                fields.id("WhoId", lead);
                return;
            }
            2..7 => {
                let contact = self.present(store, "Contact");
                fields.id("WhoId", contact);
            }
            _ => {}
        }
        let what = match self.rng.random_range(0..10) {
            0..3 => "Account",
            3..6 => "Opportunity",
            6..8 => "Case",
            8 => "Invoice__c",
            _ => return,
        };
        let what = self.present(store, what);
        fields.id("WhatId", what);
    }

    fn task(&mut self, store: &Store, fields: &mut Fields<'_>, times: &Times) {
        self.about(store, fields);
        let rng = &mut self.rng;
        fields.text(
            "Subject",
            one(
                rng,
                &[
                    "Call",
                    "Email: Angebot",
                    "Send Quote",
                    "Follow up…",
                    "Other",
                ],
            ),
        );
        let status = if rng.random_bool(0.6) {
            "Completed"
        } else {
            one(rng, &["Not Started", "In Progress", "Deferred"])
        };
        fields.text("Status", status);
        fields.pick(rng, "Priority", 1.0);
        let due = times.created + rng.random_range(0..30) * DAY;
        fields.text("ActivityDate", &moment::print_date(due));
        if rng.random_bool(0.5) {
            fields.text("Description", &words::text(rng, 3));
        }
        if rng.random_bool(0.3) {
            fields.text("TaskSubtype", "Call");
            fields.pick(rng, "CallType", 1.0);
            fields.json(
                "CallDurationInSeconds",
                rng.random_range(5..4_000).to_string(),
            );
            fields.text(
                "CallDisposition",
                one(rng, &["Left voicemail", "Erreicht", ""]),
            );
        } else {
            fields.text("TaskSubtype", one(rng, &["Task", "Task", "Email"]));
        }
        fields.json("IsReminderSet", "false");
        fields.json("IsRecurrence", "false");
        let old = self.newest - times.modified > ARCHIVED_AFTER && times.modstamp == times.modified;
        fields.json("IsArchived", (old && status == "Completed").to_string());
    }

    fn event(&mut self, store: &Store, fields: &mut Fields<'_>, number: u64, times: &Times) {
        self.about(store, fields);
        let rng = &mut self.rng;
        fields.text(
            "Subject",
            one(rng, &["Meeting", "Call", "Démo produit", "Other"]),
        );
        let day = moment::day(times.created) + rng.random_range(0..60) * DAY;
        if rng.random_bool(0.2) {
            fields.json("IsAllDayEvent", "true");
            fields.text("StartDateTime", &moment::print(day));
            fields.json("DurationInMinutes", "1440");
        } else {
            // Some begin in the hour that a change of clocks repeats or skips.
            let start = if number % 50 == 7 {
                moment::parse("2026-03-29T01:30:00Z").unwrap_or(day)
            } else {
                day + rng.random_range(7..19) * HOUR + rng.random_range(0..4) * 15 * MINUTE
            };
            fields.json("IsAllDayEvent", "false");
            fields.text("StartDateTime", &moment::print(start));
            fields.json(
                "DurationInMinutes",
                (rng.random_range(1..12) * 15).to_string(),
            );
        }
        if rng.random_bool(0.5) {
            fields.text(
                "Location",
                one(rng, &["Room 1", "Zürich", "https://meet.example.com/x"]),
            );
            fields.text("Description", &words::text(rng, 2));
        }
        fields.pick(rng, "ShowAs", 1.0);
        fields.text("EventSubtype", "Event");
        fields.json("IsPrivate", rng.random_bool(0.05).to_string());
        fields.json("IsArchived", "false");
    }

    /// A record that files and notes hang on.
    pub fn host(&mut self, store: &Store) -> Option<Id> {
        let name = [
            "Account",
            "Contact",
            "Opportunity",
            "Case",
            "Lead",
            "Invoice__c",
        ][self.rng.random_range(0..6)];
        self.present(store, name)
    }
}
