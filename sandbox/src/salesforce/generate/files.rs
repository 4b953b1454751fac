//! Notes and files. The n-th document's newest version is the n-th one;
//! older versions come behind. The first documents are notes.

use rand::Rng;

use super::maker::{Maker, Times};
use crate::salesforce::blob;
use crate::salesforce::id::Id;
use crate::salesforce::moment;
use crate::salesforce::people::Fields;
use crate::salesforce::store::Store;
use crate::salesforce::words::{self, one};

/// Names of files and what they are.
const FILES: [(&str, &str, &str); 5] = [
    ("Angebot (final).pdf", "PDF", "pdf"),
    ("contract.docx", "WORD_X", "docx"),
    ("données \"2024\".csv", "CSV", "csv"),
    ("photo.jpg", "JPG", "jpg"),
    ("見積書.xlsx", "EXCEL_X", "xlsx"),
];

/// A file of a document, the same from each object that tells of it.
struct File {
    title: String,
    path: String,
    kind: &'static str,
    extension: &'static str,
    size: u64,
}

impl File {
    fn of(document: u64, note: bool) -> File {
        let size = 40 + document * 7_919 % 4_000;
        if note {
            return File {
                title: format!("Notiz {document}"),
                path: format!("Notiz {document}.snote"),
                kind: "SNOTE",
                extension: "snote",
                size,
            };
        }
        let (path, kind, extension) = FILES[(document % FILES.len() as u64) as usize];
        let title = path.rsplit_once('.').map_or(path, |(title, _)| title);
        File {
            title: format!("{title} {document}"),
            path: path.to_owned(),
            kind,
            extension,
            size,
        }
    }
}

impl Maker {
    /// The values of such a record, true if the object is one of these.
    pub fn files(
        &mut self,
        store: &Store,
        fields: &mut Fields<'_>,
        name: &str,
        number: u64,
        times: &Times,
    ) -> bool {
        match name {
            "Note" => {
                let host = self.host(store);
                fields.id("ParentId", host);
                let title: String = one(&mut self.rng, &words::SUBJECT)
                    .chars()
                    .take(80)
                    .collect();
                fields.text("Title", &title);
                fields.text("Body", &words::text(&mut self.rng, 4));
                fields.json("IsPrivate", "false");
            }
            "Attachment" => {
                let host = self.host(store);
                fields.id("ParentId", host);
                let (path, _, extension) = FILES[(number % FILES.len() as u64) as usize];
                fields.text("Name", path);
                let kind = match extension {
                    "pdf" => "application/pdf",
                    "csv" => "text/csv",
                    "jpg" => "image/jpeg",
                    _ => "application/octet-stream",
                };
                fields.text("ContentType", kind);
                fields.json("BodyLength", (10 + number * 7_919 % 4_000).to_string());
                fields.json("IsPrivate", "false");
            }
            "ContentDocument" | "ContentNote" | "ContentVersion" => {
                self.document(store, fields, name, number, times);
            }
            "ContentDocumentLink" => {
                let documents = self.count(store, "ContentDocument");
                let document = (number - 1) % documents.max(1) + 1;
                fields.id("ContentDocumentId", Some(Id::numbered("069", document)));
                // Each belongs to its owner first, then to records.
                let entity = if number <= documents {
                    let user = self.rng.random_range(1..=self.users.max(1));
                    fields.text("ShareType", "I");
                    Some(Id::numbered("005", user))
                } else {
                    fields.text("ShareType", one(&mut self.rng, &["V", "C", "I"]));
                    self.host(store)
                };
                fields.id("LinkedEntityId", entity);
                fields.text(
                    "Visibility",
                    one(&mut self.rng, &["AllUsers", "InternalUsers"]),
                );
            }
            _ => return false,
        }
        true
    }

    fn document(
        &mut self,
        store: &Store,
        fields: &mut Fields<'_>,
        name: &str,
        number: u64,
        times: &Times,
    ) {
        let documents = self.count(store, "ContentDocument").max(1);
        let version = name == "ContentVersion";
        let (document, older) = if version && number > documents {
            // An older version of an earlier document.
            ((number - 1) % documents + 1, true)
        } else {
            (number, false)
        };
        let note = document <= self.count(store, "ContentNote");
        let file = File::of(document, note);
        fields.text("Title", &file.title);
        fields.text("FileType", file.kind);
        fields.text("FileExtension", file.extension);
        fields.json("ContentSize", file.size.to_string());
        fields.text("ContentModifiedDate", &moment::print(times.modified));
        fields.text("SharingPrivacy", "N");
        fields.text("PublishStatus", "P");
        let latest = Some(Id::numbered("068", document));
        if !version {
            fields.id("LatestPublishedVersionId", latest);
            fields.json("IsArchived", "false");
            fields.json("IsReadOnly", "false");
            fields.text("TextPreview", "the quick brown fox");
            return;
        }
        fields.id("ContentDocumentId", Some(Id::numbered("069", document)));
        fields.json("IsLatest", (!older).to_string());
        let versions = self.count(store, "ContentVersion");
        let replaced = !older && documents + document <= versions;
        fields.text("VersionNumber", if replaced { "2" } else { "1" });
        fields.text("PathOnClient", &file.path);
        fields.text("SharingOption", "A");
        fields.text("Origin", if note { "H" } else { "C" });
        fields.text("ContentLocation", "S");
        fields.json("IsMajorVersion", "true");
        fields.json("IsAssetEnabled", "false");
        let bytes = blob::generated(Id::numbered("068", number), file.size as usize);
        fields.text("Checksum", &blob::checksum(&bytes));
        if !older {
            let host = self.host(store);
            fields.id("FirstPublishLocationId", host);
        }
    }
}
