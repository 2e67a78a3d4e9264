//! Golden manifests: those that must be read, with what people are shown of them, and for each rule of the format one
//! that breaks it and says so in `breaks`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use crate::support::outcome::Outcome;
use crate::support::tool::pg_unfork;
use jsonschema::draft202012;
use pg_unfork::manifest::{Manifest, digest_of, parse, to_json, validate};
use pg_unfork::report::{Layout, MARKDOWN_LIMIT, html, markdown, summary};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The golden manifests of a directory.
///
/// With `PG_UNFORK_UPDATE_GOLDEN=1` documents that somebody has edited are signed anew first, and what people are shown
/// of them is written anew: `PG_UNFORK_UPDATE_GOLDEN=1 cargo test --release --test it golden::`.
pub(crate) fn golden(directory: &str) -> Vec<PathBuf> {
    static SIGNED: Once = Once::new();
    if is_update() {
        SIGNED.call_once(|| files("valid").iter().chain(&files("invalid")).for_each(|file| sign(file)));
    }
    files(directory)
}

fn is_update() -> bool {
    std::env::var_os("PG_UNFORK_UPDATE_GOLDEN").is_some()
}

/// Gives a document the digest that it should have, but for one that is there for its wrong digest, or has none.
fn sign(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let stated =
        text.lines().find_map(|line| line.strip_prefix("\"digest\":")).map(|line| line.trim_matches([',', '"']));
    if let (Ok(digest), Some(stated)) = (digest_of(text.as_bytes()), stated)
        && file.file_stem().unwrap() != "digest"
    {
        fs::write(file, text.replace(stated, &digest)).unwrap();
    }
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    files
}

fn valid(name: &str) -> Manifest {
    let file = golden("valid").into_iter().find(|file| file.file_stem().unwrap() == name).unwrap();
    parse(&fs::read(file).unwrap()).unwrap()
}

/// Everything that is wrong with a document.
fn problems(document: &Vec<u8>) -> Vec<String> {
    match parse(document) {
        Ok(manifest) => validate(&manifest),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn valid_ones_are_read_as_they_were_written() {
    let schema = serde_json::from_str(include_str!("../../schema/manifest.v1.schema.json")).unwrap();
    let schema = draft202012::new(&schema).unwrap();
    for file in golden("valid") {
        let document = fs::read(&file).unwrap();
        let mut manifest = parse(&document).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let written = String::from_utf8(to_json(&mut manifest).unwrap()).unwrap();
        assert_eq!(written, String::from_utf8(document.clone()).unwrap(), "{}", file.display());
        let errors: Vec<String> = schema
            .iter_errors(&serde_json::from_slice(&document).unwrap())
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
        // What is not a whole plan lacks what a rewind must have.
        if manifest.applyable {
            assert_eq!(validate(&manifest), [""; 0], "{}", file.display());
        }
    }
}

/// The rule that an invalid document says it breaks.
pub(crate) fn rule_that_breaks(document: &[u8]) -> String {
    let text = std::str::from_utf8(document).unwrap();
    let breaks = text.lines().find_map(|line| line.strip_prefix("\"breaks\":")).unwrap();
    serde_json::from_str(breaks.trim_end_matches(',')).unwrap()
}

#[test]
fn invalid_ones_break_the_rule_that_they_name() {
    for file in golden("invalid") {
        let document = fs::read(&file).unwrap();
        let breaks = rule_that_breaks(&document);
        let problems = problems(&document);
        assert!(problems.iter().any(|problem| problem.contains(&breaks)), "{}: {problems:#?}", file.display());
    }
}

/// Rules that no document can break: the types that it is read into refuse it before.
const UNREACHABLE: [&str; 3] =
    ["a size is larger than 2^53-1", "a symlink that leads nowhere", "the document changes while it is read"];

#[test]
fn every_rule_has_a_manifest_that_breaks_it() {
    let broken: Vec<String> = golden("invalid").iter().flat_map(|file| problems(&fs::read(file).unwrap())).collect();
    for (code, sentences) in [
        (include_str!("../../src/manifest/validate.rs"), sentences as fn(&str) -> Vec<String>),
        (include_str!("../../src/manifest/read.rs"), sentences),
        (include_str!("../../src/manifest/digest.rs"), sentences),
    ] {
        for sentence in sentences(code).iter().filter(|sentence| !UNREACHABLE.contains(&sentence.as_str())) {
            let parts: Vec<&str> = sentence.split(['{', '}']).step_by(2).collect();
            let is_said = |problem: &String| parts.iter().all(|part| problem.contains(part));
            assert!(broken.iter().any(is_said), "no golden manifest breaks the rule {sentence:?}");
        }
    }
}

/// The string literals of code that are messages: of several words. Placeholders remain.
fn sentences(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap();
    let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.map(|line| format!("{line}\n")).collect();
    // What is no end of a literal.
    let code = code.replace("\\\\", "").replace("\\\"", "").replace("'\"'", "");
    let literals = code.split('"').skip(1).step_by(2);
    literals.filter(|text| text.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn people_are_shown_what_is_in_the_golden_files() {
    for file in golden("valid") {
        let manifest = parse(&fs::read(&file).unwrap()).unwrap();
        let narrow = Layout { colour: true, width: Some(72) };
        let shown = [
            ("txt", summary(&manifest, Some("plan.json"), Layout::default())),
            ("72.txt", summary(&manifest, Some("plan.json"), narrow)),
            ("md", markdown(&manifest, Some("plan.json"))),
            ("html", html(&manifest, Some("plan.json"))),
        ];
        for (extension, text) in shown {
            let golden = file.with_extension(extension);
            if is_update() {
                fs::write(&golden, &text).unwrap();
            }
            let expected = fs::read_to_string(&golden).unwrap_or_default();
            assert!(text == expected, "{} is not what is shown now:\n{text}", golden.display());
        }
    }
}

/// Puts a text into every place of a manifest that holds text from outside.
fn infest(manifest: &mut Manifest, text: &str) {
    let name = || text.to_owned();
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).take(200).collect();
    let path = pg_unfork::types::ClusterPath::new(&[b"x".as_slice(), &bytes].concat().replace_slashes()).unwrap();
    manifest.created = name();
    manifest.source.address = name();
    manifest.target.directory = pg_unfork::types::LinkText::new(&[b"/".as_slice(), &bytes].concat());
    for check in &mut manifest.checks {
        (check.detail, check.remedy, check.id) = (name(), Some(name()), name());
        (check.evidence, check.commands) = (vec![name(), name()], vec![name()]);
    }
    for action in &mut manifest.actions {
        action.path = path.clone();
    }
    for kept in &mut manifest.kept {
        (kept.path, kept.rule) = (path.clone(), Some(name()));
    }
    for rule in &mut manifest.rules {
        rule.rule = name();
    }
    manifest.estimate.as_mut().unwrap().basis = name();
    manifest.recovery.as_mut().unwrap().primary_conninfo = name();
    let discarded = manifest.discarded.as_mut().unwrap();
    (discarded.first_commit, discarded.last_commit) = (Some(format!("{text}1")), Some(name()));
    for database in &mut discarded.databases {
        database.name = Some(name());
    }
    for relation in &mut discarded.relations {
        relation.name = Some(name());
    }
    for commit in &mut discarded.commits {
        commit.time = Some(name());
    }
}

trait ReplaceSlashes {
    fn replace_slashes(&self) -> Vec<u8>;
}

impl ReplaceSlashes for Vec<u8> {
    fn replace_slashes(&self) -> Vec<u8> {
        self.iter().map(|byte| if *byte == b'/' { b'_' } else { *byte }).collect()
    }
}

/// A rewind that says of nothing anything but this text.
fn infested(text: &str) -> Manifest {
    let mut manifest = valid("rewind");
    infest(&mut manifest, text);
    manifest
}

/// The structure of a Markdown document, without any text. Both kinds of inline code are one.
fn structure_of_markdown(text: &str) -> Vec<String> {
    let mut structure = Vec::new();
    let mut code = 0;
    let mut block = false;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH) {
        match event {
            Event::Code(_) => structure.push("code".to_owned()),
            Event::InlineHtml(html) if &*html == "<code>" => {
                code += 1;
                structure.push("code".to_owned());
            }
            Event::InlineHtml(html) if &*html == "</code>" => code -= 1,
            Event::Start(Tag::CodeBlock(_)) => block = true,
            Event::End(TagEnd::CodeBlock) => {
                block = false;
                structure.push("block".to_owned());
            }
            Event::Text(shown) => {
                // Nothing from outside is outside of code: forges would look for mentions there.
                assert!(code > 0 || block || !shown.contains('@'), "{shown:?}");
            }
            Event::Html(html) => structure.push(html.trim().to_owned()),
            Event::SoftBreak => panic!("a line was broken:\n{text}"),
            other => structure.push(format!("{other:?}")),
        }
    }
    assert_eq!(code, 0);
    structure
}

/// The structure of a page, without any text.
fn structure_of_html(text: &str) -> Vec<String> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let page = roxmltree::Document::parse_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"));
    page.descendants()
        .filter(|node| node.is_element())
        .map(|node| format!("{} {:?}", node.tag_name().name(), node.attributes().collect::<Vec<_>>()))
        .collect()
}

/// Everything but text is the same as with a harmless name.
fn assert_harmless(text: &str) {
    static HARMLESS: LazyLock<(Vec<String>, Vec<String>, usize)> = LazyLock::new(|| {
        let harmless = infested("harmless");
        (
            structure_of_markdown(&markdown(&harmless, None)),
            structure_of_html(&html(&harmless, None)),
            summary(&harmless, None, Layout::default()).lines().count(),
        )
    });
    let manifest = infested(text);
    let shown = markdown(&manifest, None);
    assert!(shown.len() <= MARKDOWN_LIMIT);
    assert_eq!(structure_of_markdown(&shown), HARMLESS.0, "{text:?}\n{shown}");
    let page = html(&manifest, None);
    assert_eq!(structure_of_html(&page), HARMLESS.1, "{text:?}");
    for width in [None, Some(60)] {
        let layout = Layout { colour: false, width };
        let terminal = summary(&manifest, None, layout);
        if width.is_none() {
            assert_eq!(terminal.lines().count(), HARMLESS.2, "{text:?}");
        }
        for shown in [&terminal, &shown, &page] {
            let treacherous = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2066}\u{200b}\u{2028}".contains(c);
            assert!(!shown.contains(treacherous), "{text:?}");
        }
    }
}

const HOSTILE: [&str; 26] = [
    "",
    " ",
    "  a  ",
    "<script>alert(1)</script>",
    "</code></summary></details>",
    "a|b",
    "a\\|b",
    "\\",
    "a\\",
    "`",
    "``` x",
    "a``b`",
    "@user",
    "#1 owner/repo#2 GH-3",
    "**a** _b_ ~~c~~ [d](e) ![f](g)",
    "<!-- ",
    "&amp; &lt; &#64;",
    "\u{1b}[31m\u{9b}2J\u{7}",
    "\u{202e}abc\u{2066}\u{200b}",
    "a\nb\r\n\n# c",
    "a\u{2028}b\u{85}c",
    "http://example.com www.example.com a@example.com",
    "$x$ :tada: $`y`$",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "]]> <![CDATA[ <?x ?>",
    "\u{fffe}\u{ffff}\u{feff}\0",
];

#[test]
fn hostile_names_change_nothing() {
    for text in HOSTILE {
        assert_harmless(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_changes_anything(text in prop_oneof![
        any::<String>(),
        "[<>|`@#&*_~\\\\\\[\\](){}!$:'\"/ \\n\\r\\t\u{1b}\u{202e}a1-]{1,40}",
        "(```|</code>|<!--|\\|\\||@a|#1|\\\\\\||`| ){1,12}",
    ]) {
        assert_harmless(&text);
    }
}

/// However much there is to say, a forge takes it, and nothing is cut in its middle.
#[test]
fn a_comment_is_never_too_long() {
    let mut manifest = infested(&"|`@<\u{1f600}\\".repeat(4_000));
    let few = structure_of_markdown(&markdown(&manifest, None));
    for details in ["<details>", "</details>"] {
        assert!(few.iter().any(|part| part.contains(details)), "{few:#?}");
    }
    manifest.checks = vec![manifest.checks[2].clone(); 3_000];
    manifest.kept = vec![manifest.kept[0].clone(); 5_000];
    manifest.actions = vec![manifest.actions[4].clone(); 5_000];
    let discarded = manifest.discarded.as_mut().unwrap();
    discarded.databases = vec![discarded.databases[1].clone(); 5_000];
    discarded.relations = vec![discarded.relations[0].clone(); 5_000];
    discarded.commits = vec![discarded.commits[0].clone(); 5_000];
    let shown = markdown(&manifest, None);
    assert!(shown.len() <= MARKDOWN_LIMIT, "{} bytes", shown.len());
    let structure = structure_of_markdown(&shown);
    let count = |text: &str| structure.iter().map(|part| part.matches(text).count()).sum::<usize>();
    assert!(count("<details>") > 3 && count("<details>") == count("</details>"), "{structure:#?}");
    // What was left out is counted.
    assert!(shown.contains("and 4,9") || shown.contains("and 5,000"), "{shown}");
    assert!(shown.contains("--expect-digest sha256:"), "{shown}");
}

/// What `show` writes is what the golden files have; colours are for those who want them.
#[test]
fn show_has_a_format_for_each_reader() {
    let file = golden("valid").into_iter().find(|file| file.file_stem().unwrap() == "rewind").unwrap();
    let show = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = pg_unfork(&["show"]);
        command.args(arguments).stdin(fs::File::open(&file).unwrap());
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        Outcome::of(command.envs(variables.iter().copied())).success().stdout
    };
    for (format, extension) in [("text", "txt"), ("markdown", "md"), ("html", "html"), ("json", "json")] {
        let expected = fs::read_to_string(file.with_extension(extension)).unwrap();
        assert!(show(&["-", "--format", format], &[]) == expected, "{format}");
    }
    let named = show(&[&file.display().to_string(), "--format=markdown"], &[]);
    assert!(named.contains("/rewind.json --expect-digest sha256:"), "{named}");
    let coloured = show(&["-"], &[("CLICOLOR_FORCE", "1")]);
    assert!(coloured.contains("\u{1b}[31m"), "{coloured}");
    for variables in [&[("NO_COLOR", "1")][..], &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]] {
        assert!(!show(&["-"], variables).contains('\u{1b}'), "{variables:?}");
    }
}
