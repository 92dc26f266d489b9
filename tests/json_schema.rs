//! The JSON of events, and the schema that describes it.

use job::{JobEvent, JobEventKind, JobState};
use serde_json::json;

#[test]
fn events_are_tagged_with_their_type_and_time() {
    let event = JobEvent {
        at: chrono::DateTime::from_timestamp(1_000_000_000, 0).unwrap(),
        kind: JobEventKind::Failed {
            attempt: 2,
            error: "no route".to_owned(),
            retry_at: chrono::DateTime::from_timestamp(1_000_000_060, 0).unwrap(),
        },
    };
    let expected = json!({
        "at": "2001-09-09T01:46:40Z",
        "type": "failed",
        "attempt": 2,
        "error": "no route",
        "retry_at": "2001-09-09T01:47:40Z",
    });
    assert_eq!(serde_json::to_value(&event).unwrap(), expected);
    assert_eq!(serde_json::from_value::<JobEvent>(expected).unwrap(), event);
    assert_eq!(json!(JobState::Errored), json!("errored"));
}

#[cfg(feature = "json-schema")]
#[test]
fn the_schema_knows_every_type_of_event() {
    let schema = schemars::schema_for!(JobEvent).to_value().to_string();
    let types = [
        "spawned",
        "started",
        "completed",
        "rescheduled",
        "failed",
        "errored",
        "aborted",
        "lease_lost",
    ];
    for name in types {
        assert!(
            schema.contains(&format!("\"const\":\"{name}\"")),
            "{name}: {schema}"
        );
    }
}
