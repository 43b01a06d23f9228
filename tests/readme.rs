//! README.md is run, not believed: its tour is pasted into a shell, block by block, and what it says of
//! commands and variables is compared with the code.
//!
//! The convention of the tour and of the section on bearer tokens: each `sh` block is pasted; the `text` block right behind it, if any, is what
//! it prints, where `…` stands for anything within a line; a block whose info string is `sh skip` is not run.

#[path = "readme/blocks.rs"]
mod blocks;
#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use tokend::cli::Cli;

use self::blocks::{Step, matches, section, steps};
use self::support::{Directory, Tokend, program, skip};

const TOURS: [&str; 2] = ["## A five-minute tour", "## Bearer tokens"];
/// The address that the tour uses.
const TOUR_URL: &str = "http://127.0.0.1:3000";

const README: &str = include_str!("../README.md");

/// What a block printed when pasted into a shell.
fn paste(step: &Step, service: &Tokend, directory: &Directory) -> String {
    let own = program();
    let own = own.parent().expect("a directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    // What the user would have built is what was built here.
    let script = step.script.replace(TOUR_URL, &service.url);
    let script = script.replace("$PWD/target/release", &own.to_string());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(directory.path())
        .env("PATH", format!("{own}:{path}"))
        .env("TOKEND_URL", &service.url)
        .env_remove("TOKEND_POOL")
        .env("no_proxy", "*")
        .output()
        .expect("bash runs");
    let (stdout, stderr) = (output.stdout, output.stderr);
    let stdout = String::from_utf8(stdout).expect("UTF-8");
    let stderr = String::from_utf8(stderr).expect("UTF-8");
    assert!(
        output.status.success(),
        "the block at line {} of README.md fails with {}:\n{}\nit printed:\n{stdout}{stderr}",
        step.line,
        output.status,
        step.script,
    );
    stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_can_be_pasted_and_prints_what_it_says() {
    const TEST: &str = "the_tour_can_be_pasted_and_prints_what_it_says";
    for tool in ["redis-server", "curl", "bash"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return skip(TEST, &format!("no {tool}"));
        }
    }
    let tours = TOURS.map(|heading| {
        let (first_line, tour) = section(README, heading).expect(heading);
        let steps = steps(tour, first_line);
        assert!(steps.len() >= 3, "{heading} has hardly any steps");
        steps
    });
    // As a reader starts it: with a Redis of its own.
    let directory = Directory::new();
    let service = Tokend::start(&directory, &[]).await;
    for step in tours.iter().flatten() {
        let printed = paste(step, &service, &directory);
        let Some(expected) = &step.expected else {
            continue;
        };
        assert!(
            matches(expected, &printed),
            "the block at line {} of README.md:\n{}\nshould print\n{expected}\nand prints\n{printed}",
            step.line,
            step.script,
        );
    }
}

/// The words of each `tokend …` command that the text shows, without those that depend on the reader.
fn shown_commands(text: &str) -> Vec<Vec<String>> {
    let mut in_fence = false;
    let (mut fenced, mut prose) = (Vec::new(), String::new());
    for line in text.lines() {
        if line.starts_with("```") {
            in_fence = !in_fence;
        } else if in_fence {
            fenced.push(line.trim());
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    let inline = prose.split('`').skip(1).step_by(2);
    fenced
        .into_iter()
        .chain(inline)
        .filter(|code| code.starts_with("tokend ") && !code.contains('\n'))
        .map(|shown| {
            let ours = shown.split(" -- ").next().unwrap_or(shown);
            let words = ours.split_whitespace().skip(1);
            words
                .map(|word| word.trim_end_matches([',', ';', '\\']).to_owned())
                .collect()
        })
        .collect()
}

/// What is wrong with a command shown: a verb or an option that does not exist.
fn mistake(words: &[String]) -> Option<String> {
    let mut command = Cli::command();
    command.build();
    let mut at = &command;
    for word in words {
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or(option);
            let known = at.get_arguments().any(|arg| {
                arg.get_long() == Some(name)
                    || arg.get_all_aliases().unwrap_or_default().contains(&name)
            });
            if !known && !["help", "version"].contains(&name) {
                return Some(format!("{} has no --{name}", at.get_name()));
            }
        } else if let Some(short) = word.strip_prefix('-').and_then(|it| it.chars().next()) {
            let known = at.get_arguments().any(|arg| arg.get_short() == Some(short));
            if !known && !['h', 'V'].contains(&short) {
                return Some(format!("{} has no -{short}", at.get_name()));
            }
        } else if let Some(verb) = at.find_subcommand(word) {
            at = verb;
        } else if at.has_subcommands() && at.is_subcommand_required_set() {
            return Some(format!("{} has no command {word}", at.get_name()));
        }
    }
    None
}

#[test]
fn every_command_and_option_shown_exists() {
    let shown = shown_commands(README);
    assert!(!shown.is_empty(), "README.md shows no command");
    let mistakes: Vec<_> = shown
        .iter()
        .filter_map(|words| Some(format!("tokend {}: {}", words.join(" "), mistake(words)?)))
        .collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    for (command, known) in [
        ("serve --port 3000", true),
        ("serve -p 3000", true),
        ("lease seats --wait-for 30s", true),
        ("pool set seats --lifetime=1m --json", true),
        ("--help", true),
        ("srve", false),
        ("pool sett seats", false),
        ("lease seats --wait 30s", false),
        ("serve -x", false),
    ] {
        let words: Vec<_> = command.split(' ').map(ToOwned::to_owned).collect();
        assert_eq!(mistake(&words).is_none(), known, "{command}");
    }
    let text =
        "tokend is run by `tokend serve`, or\n```sh\ntokend lease seats -- make --unknown\n```\n";
    let shown: Vec<_> = shown_commands(text).iter().map(|it| it.join(" ")).collect();
    assert_eq!(shown, ["lease seats", "serve"]);
}

/// The names in upper case that the first column of the section's table has in backquotes.
fn tabled_variables(section: &str) -> BTreeSet<String> {
    let rows = section.lines().filter(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let code = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    code.filter(|name| is_variable(name))
        .map(ToOwned::to_owned)
        .collect()
}

fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(plain)
}

/// The variables of `.env.example`, those in comments included.
fn example_variables(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("# "));
    let names = lines.filter_map(|line| line.split_once('=').map(|(name, _)| name));
    names
        .filter(|name| is_variable(name))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn the_configuration_table_has_each_variable_of_the_example() {
    let (_, section) = section(README, "## Configuration").expect("README.md has the table");
    let example = include_str!("../.env.example");
    assert_eq!(tabled_variables(section), example_variables(example));
}

#[test]
fn variables_are_found_in_a_table_and_in_an_example() {
    let table =
        "| variable | default |\n|---|---|\n| `HOST`, `PORT` | `X_Y` |\n| `lifetime` | 1 |\n";
    let expected: BTreeSet<_> = ["HOST", "PORT"].map(ToOwned::to_owned).into();
    assert_eq!(tabled_variables(table), expected);
    let example = "# Words about it.\nHOST=127.0.0.1\n# PORT=3000\n# as in redis://a=b\n";
    assert_eq!(example_variables(example), expected);
}
