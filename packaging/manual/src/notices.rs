//! The copyright notices and licences of the crates that are linked into a
//! program, which their licences ask every copy of it to carry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// How the names of files begin that have licences or notices in them.
const NAMES: [&str; 8] =
    ["AUTHORS", "COPYING", "COPYRIGHT", "LICENCE", "LICENSE", "NOTICE", "PATENTS", "UNLICENSE"];
/// The MIT licence is our own, too.
const MIT: &str = include_str!("../../../LICENSE");
/// Debian's policy has this licence referred to, not copied.
const APACHE: &str = "Licensed under the Apache License, Version 2.0, which Debian systems have in \
                      /usr/share/common-licenses/Apache-2.0.";
const LINE: &str = "------------------------------------------------------------------------------";

/// What `cargo metadata` says, as far as it is needed here. Source: The Cargo
/// Book, cargo-metadata(1).
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    authors: Vec<String>,
    /// Absent for the crates of this workspace.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Debug, Deserialize)]
struct Kind {
    /// `dev` or `build`; neither is linked.
    kind: Option<String>,
}

/// The dependencies of this workspace as they are built for `target`, a name of
/// Rust's such as `x86_64-unknown-linux-gnu`.
pub(crate) fn metadata(target: &str) -> anyhow::Result<Metadata> {
    // As cargo names itself to what it runs.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--locked", "--format-version=1", "--filter-platform", target]);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

/// The notices of a program: each crate, with the numbers of its texts, then
/// the texts, each once.
pub(crate) fn page(metadata: &Metadata, program: &str) -> anyhow::Result<String> {
    let mut page = format!(
        "Third-party software in {program}\n\n\
         {program} is linked statically with Rust's standard library (Copyright (c) The Rust\n\
         Project contributors, MIT OR Apache-2.0, https://github.com/rust-lang/rust) and with\n\
         these crates, or has code that they have generated. Numbers are those of the licences\n\
         and notices below, which are as the crates have them.\n\n"
    );
    let mut texts = Texts::default();
    for package in linked(metadata, program)? {
        let license = package.license.as_deref().unwrap_or("licence as below");
        writeln!(page, "{} {}, {license}", package.name, package.version)?;
        if let Some(repository) = &package.repository {
            writeln!(page, "    {repository}")?;
        }
        let own = notices(package).with_context(|| format!("{} {}", package.name, package.version))?;
        let numbers: BTreeSet<usize> = own.into_iter().map(|text| texts.number(text)).collect();
        let numbers: Vec<String> = numbers.iter().map(|number| format!("[{number}]")).collect();
        writeln!(page, "    {}", numbers.join(" "))?;
    }
    for (index, text) in texts.all.iter().enumerate() {
        write!(page, "\n{LINE}\n[{}]\n\n{}\n", index + 1, text.trim_matches('\n'))?;
    }
    Ok(page)
}

/// Texts that differ in more than white space, in the order of their numbers.
#[derive(Default)]
struct Texts {
    all: Vec<String>,
    known: BTreeMap<String, usize>,
}

impl Texts {
    /// The text's number, from 1 on.
    fn number(&mut self, text: String) -> usize {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        *self.known.entry(words).or_insert_with(|| {
            self.all.push(text);
            self.all.len()
        })
    }
}

/// What the program is linked with, other than this workspace's own crates, by
/// name and version.
fn linked<'a>(metadata: &'a Metadata, program: &str) -> anyhow::Result<Vec<&'a Package>> {
    let packages: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package)).collect();
    let nodes: BTreeMap<_, _> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let own = metadata.packages.iter().find(|package| package.name == program && package.source.is_none());
    let mut open = vec![own.with_context(|| format!("no crate {program} in this workspace"))?.id.as_str()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let node = nodes.get(id).with_context(|| format!("{id} is not resolved"))?;
            let is_linked =
                |dependency: &&Dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            open.extend(node.deps.iter().filter(is_linked).map(|dependency| dependency.pkg.as_str()));
        }
    }
    let mut found: Vec<_> = seen.iter().filter_map(|id| packages.get(id).copied()).collect();
    found.retain(|package| package.source.is_some());
    found.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(found)
}

/// The texts that a crate has; one that has none is given its licence's.
fn notices(package: &Package) -> anyhow::Result<Vec<String>> {
    let directory = package.manifest_path.parent().context("a manifest without a directory")?;
    let mut files = Vec::new();
    collect(directory, &mut files)?;
    files.sort();
    let read = |file: &PathBuf| {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
    };
    if !files.is_empty() {
        return files.iter().map(read).collect();
    }
    let license = package.license.as_deref().unwrap_or_default();
    let copyright = format!("Copyright (c) {}", package.authors.join(", "));
    if license.contains("MIT") {
        let (_, permission) = MIT.split_once("\n\nPermission").context("our own LICENSE has another form")?;
        Ok(vec![format!("MIT License\n\n{copyright}\n\nPermission{permission}")])
    } else if license.contains("Apache-2.0") {
        Ok(vec![format!("{copyright}\n\n{APACHE}\n")])
    } else {
        bail!("has no file with its licence ({license:?}), and its text is not known here; see notices.rs")
    }
}

/// The files with licences or notices in a directory and those below.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let context = || format!("cannot list {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name().to_string_lossy().to_ascii_uppercase();
        if entry.file_type().with_context(context)?.is_dir() {
            collect(&entry.path(), files)?;
        } else if NAMES.iter().any(|known| name.starts_with(known)) && !name.ends_with(".RS") {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A crate in `place` with these files; its id is its name.
    fn package(place: &Path, name: &str, license: &str, files: &[(&str, &str)]) -> serde_json::Value {
        let directory = place.join(name);
        for (file, text) in files {
            let file = directory.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        fs::create_dir_all(&directory).unwrap();
        json!({"id": name, "name": name, "version": "1.0.0", "license": license, "authors": ["Ann", "Bob"],
               "source": "registry", "manifest_path": directory.join("Cargo.toml")})
    }

    fn metadata(place: &Path, packages: Vec<serde_json::Value>, nodes: serde_json::Value) -> Metadata {
        let own = json!({"id": "own", "name": "own", "version": "1.0.0", "license": "MIT", "authors": [],
                         "source": null, "manifest_path": place.join("own/Cargo.toml")});
        let packages: Vec<_> = packages.into_iter().chain([own]).collect();
        serde_json::from_value(json!({"packages": packages, "resolve": {"nodes": nodes}})).unwrap()
    }

    fn node(id: &str, deps: &[(&str, Option<&str>)]) -> serde_json::Value {
        let deps: Vec<_> =
            deps.iter().map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": id, "deps": deps})
    }

    #[test]
    fn what_is_linked_is_named_with_its_texts_and_each_text_is_there_once() {
        let place = tempfile::tempdir().unwrap();
        let one = &[
            ("LICENSE", "(c) Ann\n\nAs you like.\n"),
            ("src/below/NOTICE", "Thank Ann.\n"),
            ("src/license.rs", "no"),
        ];
        let packages = vec![
            package(place.path(), "one", "ISC", one),
            package(place.path(), "two", "ISC", &[("licence.txt", "(c) Ann\r\n\r\nAs you  like.")]),
            package(place.path(), "tool", "ISC", &[("LICENSE", "Of what builds.")]),
            package(place.path(), "judge", "ISC", &[("LICENSE", "Of what tests.")]),
        ];
        let nodes = json!([
            node("own", &[("two", None), ("judge", Some("dev"))]),
            node("two", &[("one", None), ("tool", Some("build"))]),
            node("one", &[]),
        ]);
        let page = page(&metadata(place.path(), packages, nodes), "own").unwrap();
        assert!(page.contains("\none 1.0.0, ISC\n    [1] [2]\ntwo 1.0.0, ISC\n    [1]\n"), "{page}");
        let texts = format!("\n{LINE}\n[1]\n\n(c) Ann\n\nAs you like.\n\n{LINE}\n[2]\n\nThank Ann.\n");
        assert!(page.ends_with(&texts), "{page}");
    }

    #[test]
    fn a_crate_without_a_licence_file_is_given_the_text_and_its_authors() {
        let place = tempfile::tempdir().unwrap();
        let of = |license: &str| {
            let package = package(place.path(), "bare", license, &[]);
            notices(&serde_json::from_value(package).unwrap())
        };
        let mit = of("MIT OR Apache-2.0").unwrap().concat();
        assert!(
            mit.starts_with("MIT License\n\nCopyright (c) Ann, Bob\n\nPermission is hereby granted"),
            "{mit}"
        );
        assert!(!mit.contains("iotdm"), "{mit}");
        let apache = of("Apache-2.0").unwrap().concat();
        assert!(
            apache.starts_with("Copyright (c) Ann, Bob\n\nLicensed under the Apache License"),
            "{apache}"
        );
        let unknown = of("Beerware").unwrap_err().to_string();
        assert!(unknown.contains("\"Beerware\""), "{unknown}");
    }
}
