//! `tokend user`: who may log in. It goes to Redis itself, for there is no HTTP interface to make users with:
//! whoever can reach Redis may.

mod htpasswd;
mod secret;

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use crate::auth::password;
use crate::auth::user::UserName;
use crate::cli::error::{EXIT_REFUSED, EXIT_UNAVAILABLE, Failure};
use crate::cli::output::{one_line, print};
use crate::cli::{UserArgs, UserCommand, UserImportArgs};
use crate::config::Config;
use crate::embedded;
use crate::store::{Store, StoreConfig, UserListed};
use crate::token::StoreError;

/// Runs one command to its end and says how it went.
#[must_use]
pub fn run(command: &UserCommand, json: bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(connect_and_do(command, json)),
        Err(error) => Err(Failure::io("cannot start", &error)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn connect_and_do(command: &UserCommand, json: bool) -> Result<(), Failure> {
    let config = load_config()?;
    let store = Store::for_users(store_config(&config)?).await;
    let store = store.map_err(|why| unavailable(&why))?;
    let done = execute(&store, command, json).await;
    store.stop().await;
    done
}

/// The settings that `tokend serve` reads.
pub(crate) fn load_config() -> Result<Config, Failure> {
    Config::load().map_err(|error| Failure::usage(error.to_string()))
}

/// The Redis that it uses; the embedded one, if it is running.
pub(crate) fn store_config(config: &Config) -> Result<StoreConfig, Failure> {
    let url = match &config.redis_url {
        Some(url) => url.expose().to_owned(),
        None => embedded::running_url(&config.data_dir).ok_or_else(|| nobody(config))?,
    };
    Ok(config.store(url))
}

fn nobody(config: &Config) -> Failure {
    let directory = config.data_dir.display();
    unavailable(&format!(
        "no tokend is running on DATA_DIR {directory}: start `tokend serve` first, or set REDIS_URL"
    ))
}

pub(crate) fn unavailable(why: &dyn std::fmt::Display) -> Failure {
    Failure {
        message: one_line(&why.to_string()),
        code: EXIT_UNAVAILABLE,
    }
}

fn refused(message: String) -> Failure {
    Failure {
        message,
        code: EXIT_REFUSED,
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        unavailable(&format!("Redis: {error}"))
    }
}

async fn execute(store: &Store, command: &UserCommand, json: bool) -> Result<(), Failure> {
    match command {
        UserCommand::Add(UserArgs { name }) => {
            let name = UserName::prepare(name.as_str());
            let name = name.map_err(|why| Failure::usage(why.to_string()))?;
            // Before the password is asked for, and once more with it.
            let listed = store.list_users().await?;
            if let Some(other) = spellings_of(&listed, [&name]).first() {
                return Err(exists(other));
            }
            let hash = ask_and_hash(&name)?;
            if !store.add_user(&name, &hash).await? {
                return Err(exists(&name));
            }
            tell(json, &name, "added")
        }
        UserCommand::Passwd(UserArgs { name }) => {
            let name = find(store, name).await?;
            let hash = ask_and_hash(&name)?;
            if !store.set_password(&name, &hash).await? {
                return Err(unknown(&name));
            }
            tell(json, &name, "changed")
        }
        UserCommand::Delete(UserArgs { name }) => {
            let name = find(store, name).await?;
            if !store.delete_user(&name).await? {
                return Err(unknown(&name));
            }
            tell(json, &name, "deleted")
        }
        UserCommand::List => list(&store.list_users().await?, json),
        UserCommand::Import(args) => import(store, args, json).await,
    }
}

/// The name under which a user is stored: just as typed, or in the form of all new names.
async fn find(store: &Store, typed: &UserName) -> Result<UserName, Failure> {
    let names = UserName::spellings(typed.as_str());
    let user = store.find_spelling(&names).await?;
    user.map(|user| user.name).ok_or_else(|| unknown(typed))
}

/// Users who are stored under a spelling of any of these names. Older names may be in any form.
fn spellings_of<'a>(
    listed: &'a [UserListed],
    names: impl IntoIterator<Item = &'a UserName>,
) -> Vec<&'a UserName> {
    let names: HashSet<_> = names.into_iter().map(UserName::as_str).collect();
    let listed = listed.iter().map(|user| &user.name);
    listed
        .filter(|name| names.contains(UserName::form(name.as_str()).as_str()))
        .collect()
}

/// The name; where it is not in the form of new names, also with its characters in ASCII, for it may look like one.
fn spelt(name: &UserName) -> String {
    let shown = one_line(name.as_str());
    if UserName::form(name.as_str()) == name.as_str() {
        return shown;
    }
    format!("{shown} (spelt {})", name.as_str().escape_default())
}

fn exists(name: &UserName) -> Failure {
    refused(format!(
        "the user {} exists: `tokend user passwd` sets another password",
        spelt(name)
    ))
}

fn unknown(name: &UserName) -> Failure {
    refused(format!("there is no user {name}"))
}

fn ask_and_hash(name: &UserName) -> Result<String, Failure> {
    let password = secret::ask(name)?;
    password::hash(&password).map_err(|error| refused(error.to_string()))
}

fn tell(json: bool, name: &UserName, done: &str) -> Result<(), Failure> {
    print(&if json {
        json!({ "name": name.as_str(), "done": done }).to_string()
    } else {
        format!("{done} {name}")
    })
}

fn list(users: &[UserListed], json: bool) -> Result<(), Failure> {
    if json {
        let user = |user: &UserListed| {
            let changed = UNIX_EPOCH + Duration::from_millis(user.changed_at_ms);
            let changed = humantime::format_rfc3339_millis(changed).to_string();
            json!({ "name": user.name.as_str(), "changed_at": changed })
        };
        let users: Vec<_> = users.iter().map(user).collect();
        return print(&json!({ "users": users }).to_string());
    }
    let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
    print(&names.join("\n"))
}

async fn import(store: &Store, args: &UserImportArgs, json: bool) -> Result<(), Failure> {
    let read = htpasswd::read(&args.file, args.only_bcrypt)?;
    let listed = store.list_users().await?;
    let names = read.users.iter().map(|(name, _)| name);
    let others = spellings_of(&listed, names).into_iter();
    let others = others.filter(|name| UserName::form(name.as_str()) != name.as_str());
    let others: Vec<_> = others.map(spelt).collect();
    if !others.is_empty() {
        return Err(refused(format!(
            "nothing was imported: users exist under another spelling, delete them first: {}",
            others.join(", ")
        )));
    }
    let there = store.import_users(&read.users, args.replace).await?;
    if !there.is_empty() {
        let names: Vec<_> = there.iter().map(|name| one_line(name)).collect();
        let names = names.join(", ");
        return Err(refused(format!(
            "nothing was imported: --replace would overwrite the users that exist: {names}"
        )));
    }
    let (count, skipped) = (read.users.len(), &read.refused);
    if json {
        let lines = skipped
            .iter()
            .map(|it| json!({ "line": it.line, "why": it.why }));
        let lines: Vec<_> = lines.collect();
        return print(&json!({ "imported": count, "skipped": lines }).to_string());
    }
    for it in skipped {
        eprintln!("tokend: skipped {}", one_line(&it.to_string()));
    }
    print(&match skipped.len() {
        0 => format!("imported {count} users"),
        lines => format!("imported {count} users, skipped {lines} lines"),
    })
}
