//! `drover new-extractor` and `drover new-loader`: a new connector, made of the
//! folder `dummy` of its kind. That folder is a crate of the workspace as any
//! other, compiled and tested with it, so that what is copied works.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use drover_pipeline::Code;
use drover_pipeline::spec::Stage;
use drover_pipeline::topics;

use crate::cli::print;
use crate::connectors::{TEMPLATE, program};
use crate::failure::{Failure, Result};

/// The longest name; it becomes part of topics and keys.
const LONGEST: usize = 50;

/// A file of the template, with the names replaced.
struct File {
    path: PathBuf,
    before: String,
    text: String,
}

/// Makes the folder of a new connector in the source tree around `from`.
pub(crate) fn run(stage: Stage, name: &str, from: &Path) -> Result<()> {
    judge(name)?;
    let tree = tree(stage, from)?;
    let folder = folder(stage).join(name);
    let place = tree.join(&folder);
    let mut files = Vec::new();
    read(
        &tree.join(self::folder(stage)).join(TEMPLATE),
        Path::new(""),
        name,
        &mut files,
    )?;
    free(name, &files)?;
    // Whoever makes the folder owns it: one that is there is never written into.
    fs::create_dir(&place).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => refused(
            format!("{} is there already", folder.display()),
            "choose another name, or remove that folder",
        ),
        _ => failed(&place, &error),
    })?;
    for file in files {
        let path = place.join(file.path);
        let parent = path.parent().unwrap_or(&place);
        fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        fs::write(&path, file.text).map_err(|error| failed(&path, &error))?;
    }
    let (program, folder) = (program(stage, name), folder.display());
    print(&format!(
        "{folder} is made. It should compile, and pass its suite:\n\
         \n  cargo test --release -p {program}\n  cargo build --release -p {program}\n\
         \nThen make it yours; CONNECTORS.md leads through the files one by one.\n"
    ));
    Ok(())
}

/// The folder of all connectors of a kind.
fn folder(stage: Stage) -> PathBuf {
    format!("{}s", stage.as_str()).into()
}

/// A connector's name is a part of topics, of keys, of variables, of its crate
/// and of a type.
fn judge(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(good)
        && name.len() <= LONGEST;
    if fits && topics::is_reserved(name) {
        let what = format!("`{name}` is a word of Drover's own topics and settings");
        return Err(refused(what, "choose another name").into());
    }
    if fits {
        return Ok(());
    }
    let smaller: String = name.to_ascii_lowercase();
    let smaller: String = smaller
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let smaller = smaller.trim_start_matches(|first: char| first.is_ascii_digit());
    let advice = match smaller.is_empty() || smaller.len() > LONGEST {
        true => format!("write small letters and digits, a letter first, at most {LONGEST}"),
        false => format!("write small letters and digits, a letter first: `{smaller}`"),
    };
    Err(refused(format!("`{name}` is no connector's name"), advice).into())
}

/// The name also becomes a type: one that the template has already would stand
/// there twice, and not compile.
fn free(name: &str, files: &[File]) -> Result<()> {
    let wanted = type_name(name);
    let has = |file: &&File| {
        let code = file.before.lines();
        let code = code.filter(|line| !line.trim_start().starts_with("//"));
        file.path.extension().is_some_and(|kind| kind == "rs")
            && code
                .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
                .any(|word| word == wanted)
    };
    match files.iter().find(has).filter(|_| name != TEMPLATE) {
        None => Ok(()),
        Some(file) => {
            let place = file.path.display();
            let what = format!("`{name}` would make the type {wanted}, which {place} uses");
            Err(refused(what, "choose another name").into())
        }
    }
}

/// The source tree: the nearest folder that holds the template.
fn tree(stage: Stage, from: &Path) -> Result<PathBuf> {
    let template = folder(stage).join(TEMPLATE);
    let mut above = from.ancestors();
    let found = above.find(|tree| tree.join(&template).join("Cargo.toml").is_file());
    found.map(Path::to_owned).ok_or_else(|| {
        let what = format!("{} is not here nor above", template.display());
        refused(what, "change into a clone of Drover's repository").into()
    })
}

/// Reads the template's files. Its name stands in them in three ways: in small
/// letters, in capitals (variables), and as a type.
fn read(template: &Path, below: &Path, name: &str, files: &mut Vec<File>) -> Result<()> {
    let folder = template.join(below);
    for entry in fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
        let entry = entry.map_err(|error| failed(&folder, &error))?;
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            read(template, &path, name, files)?;
            continue;
        }
        let whole = entry.path();
        let text = fs::read_to_string(&whole).map_err(|error| failed(&whole, &error))?;
        let before = text;
        let text = before
            .replace(TEMPLATE, name)
            .replace(&TEMPLATE.to_uppercase(), &name.to_uppercase())
            .replace(&type_name(TEMPLATE), &type_name(name));
        files.push(File { path, before, text });
    }
    Ok(())
}

/// The name with a capital first.
fn type_name(name: &str) -> String {
    let (first, rest) = name.split_at(name.len().min(1));
    first.to_uppercase() + rest
}

fn refused(what: impl std::fmt::Display, advice: impl std::fmt::Display) -> Failure {
    Failure::new(Code::ConfigInvalid, what, advice)
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("{}: {error}", path.display());
    refused(what, "mend that, then try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(result: Result<()>) -> String {
        result.expect_err("a refusal").to_string()
    }

    #[test]
    fn a_name_that_fits_nowhere_is_refused_with_one_that_does() {
        assert_eq!(judge("hubspot2"), Ok(()));
        for (name, told) in [
            ("Hub-Spot", ": `hubspot`"),
            ("2checkout", ": `checkout`"),
            ("a/b", ": `ab`"),
            ("..", "at most 50"),
            ("", "at most 50"),
            ("transform", "own topics and settings; choose another name"),
            ("config", "own topics and settings; choose another name"),
        ] {
            let said = said(judge(name));
            assert!(said.starts_with("CONFIG_INVALID: `"), "{said}");
            assert!(said.ends_with(told), "{name}: {said}");
        }
        assert!(judge(&"x".repeat(51)).is_err());
    }

    #[test]
    fn nothing_is_made_outside_a_tree_or_over_a_folder() {
        let tree = tempfile::tempdir().expect("a folder");
        let said_of = |from: &Path| said(run(Stage::Loader, "ledger", from));
        assert!(
            said_of(tree.path()).contains("loaders/dummy is not here nor above; change into"),
            "{}",
            said_of(tree.path())
        );
        let template = tree.path().join("loaders/dummy/src");
        fs::create_dir_all(&template).expect("a template");
        fs::write(template.join("../Cargo.toml"), "dummy").expect("a file");
        fs::write(
            template.join("lib.rs"),
            "// No Ledger.\nuse Item; dummy Dummy DUMMY_X",
        )
        .expect("a file");
        let taken = tree.path().join("loaders/ledger");
        fs::create_dir(&taken).expect("a folder");
        assert!(said_of(&template).contains("loaders/ledger is there already; choose"));
        assert_eq!(fs::read_dir(&taken).expect("a folder").count(), 0);
        fs::remove_dir(&taken).expect("gone");
        // From anywhere in the tree.
        assert_eq!(run(Stage::Loader, "ledger", &template), Ok(()));
        let text = |name: &str| fs::read_to_string(taken.join(name)).expect("a file");
        assert_eq!(text("Cargo.toml"), "ledger");
        assert_eq!(
            text("src/lib.rs"),
            "// No Ledger.\nuse Item; ledger Ledger LEDGER_X"
        );
        let said = said(run(Stage::Loader, "item", &template));
        assert!(
            said.contains("the type Item, which src/lib.rs uses"),
            "{said}"
        );
        assert!(!tree.path().join("loaders/item").exists());
    }
}
