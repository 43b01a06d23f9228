use opentelemetry::trace::{SpanContext, TraceContextExt as _};

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn read(parents: &[&str], states: &[Option<&str>]) -> SpanContext {
    let parents: Vec<_> = parents.iter().copied().map(Some).collect();
    let context = caller(|name| match name {
        "traceparent" => parents.clone().into_iter(),
        _ => Vec::from(states).into_iter(),
    });
    context.span().span_context().clone()
}

fn state(states: &[&str]) -> String {
    let states: Vec<_> = states.iter().copied().map(Some).collect();
    let read = read(&[PARENT], &states);
    assert!(read.is_valid(), "whatever the state");
    read.trace_state().header()
}

#[test]
fn a_good_traceparent_is_gone_on_with() {
    let read_it = read(&[PARENT], &[]);
    assert!(read_it.is_sampled() && read_it.is_remote());
    let ids = format!("{}-{}", read_it.trace_id(), read_it.span_id());
    assert!(PARENT.contains(&ids), "{ids}");
    let later = PARENT.replacen("00", "cc", 1);
    for good in [later.clone(), format!("{later}-what-the-future-will-be")] {
        assert_eq!(read(&[&good], &[]).trace_id(), read_it.trace_id());
    }
}

#[test]
fn a_malformed_traceparent_is_none() {
    let zeros = |part: &str| PARENT.replace(part, &"0".repeat(part.len()));
    let signed = PARENT.replacen("4b", "+b", 1);
    for bad in [
        "",
        "00-1-2-1",
        &signed,
        &PARENT.replacen("-00f", "-+0f", 1),
        &PARENT.replacen("-01", "-+1", 1),
        &PARENT.replacen("00", "+0", 1),
        &PARENT.replacen("00", "ff", 1),
        &PARENT.replacen("00", "0", 1),
        &PARENT.to_uppercase(),
        &PARENT[..54],
        &format!("{PARENT}1"),
        &format!("{PARENT}-"),
        &format!("{PARENT}-01"),
        &PARENT.replacen("00", "cc", 1).replace("-01", "-011"),
        &PARENT.replacen('b', "ä", 1),
        &zeros("4bf92f3577b34da6a3ce929d0e0e4736"),
        &zeros("00f067aa0ba902b7"),
    ] {
        assert!(!read(&[bad], &[]).is_valid(), "{bad}");
    }
    assert!(!read(&[PARENT, PARENT], &[]).is_valid(), "two of them");
    assert!(!read(&[], &[Some("a=1")]).is_valid());
}

#[test]
fn several_tracestates_are_one_list_and_a_malformed_one_is_none() {
    assert_eq!(state(&["a=1,b=2", " c=3 ,, d=4"]), "a=1,b=2,c=3,d=4");
    assert_eq!(state(&["a=1", "?"]), "");
    let unreadable = read(&[PARENT], &[Some("a=1"), None]);
    assert!(unreadable.is_valid());
    assert_eq!(unreadable.trace_state().header(), "");
}

#[test]
fn of_a_long_tracestate_512_characters_go_on_in_whole_members() {
    let member = |name: &str, length: usize| format!("{name}={}", "x".repeat(length - 2));
    // 4 of 127 with commas: 511.
    let whole = ["a", "b", "c", "d"].map(|name| member(name, 127)).join(",");
    assert_eq!(state(&[&whole]), whole);
    assert_eq!(state(&[&format!("{whole},e=1")]), whole);
    // A long one goes before those behind it.
    let long = member("l", 129);
    assert_eq!(state(&[&format!("{long},{whole}")]), whole);
    // Where there is room, none goes.
    assert_eq!(state(&[&format!("{long},a=1")]), format!("{long},a=1"));
    // Of two long ones the last.
    let (first, last) = (member("f", 250), member("g", 250));
    let told = state(&[&first, "a=1", &last, &member("h", 100)]);
    assert_eq!(told, format!("{first},a=1,{}", member("h", 100)));
    let full = format!("{},{}", member("f", 255), member("g", 256));
    assert_eq!(full.len(), STATE_MAX);
    assert_eq!(state(&[&full]), full);
}
