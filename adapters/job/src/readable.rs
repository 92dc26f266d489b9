//! JSON that can be read again: what could not is refused when it is written.
//!
//! `serde_json` writes two kinds of JSON that it does not read: numbers that are infinite
//! or NaN, as `null`, and what is nested deeper than it dares to follow.

mod finite;

use serde::Serialize;
use serde::ser::Error;

/// Arrays and objects within each other that `serde_json` reads: 127.
const DEPTH_MAX: usize = 127;

/// The value as JSON.
///
/// # Errors
///
/// If it has none, or none that could be read again.
pub(crate) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let json = serde_json::to_string(value)?;
    // A number without JSON is written so; most values have none to look for.
    if json.contains("null")
        && let Some(place) = finite::unreadable_number(value)
    {
        return Err(serde_json::Error::custom(format_args!(
            "the number{place} is infinite or NaN, which JSON does not have: it would be \
             written as null, and could not be read again"
        )));
    }
    let depth = depth(&json);
    if depth > DEPTH_MAX {
        return Err(serde_json::Error::custom(format_args!(
            "it is nested {depth} deep, and no more than {DEPTH_MAX} could be read again"
        )));
    }
    Ok(json)
}

/// How many arrays and objects lie within each other.
fn depth(json: &str) -> usize {
    let (mut depth, mut max) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                max = max.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    max
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    fn nested(depth: usize) -> Value {
        (1..depth).fold(Value::Array(Vec::new()), |inner, n| match n % 2 {
            0 => Value::Array(vec![inner]),
            _ => Value::Object([("[\"\\".to_owned(), inner)].into_iter().collect()),
        })
    }

    #[test]
    fn what_is_nested_as_deep_as_can_be_read_is_written() {
        let json = to_json(&nested(DEPTH_MAX)).unwrap();
        serde_json::from_str::<Value>(&json).unwrap();
        let refused = to_json(&nested(DEPTH_MAX + 1)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "it is nested 128 deep, and no more than 127 could be read again"
        );
        // And that is true.
        let json = serde_json::to_string(&nested(DEPTH_MAX + 1)).unwrap();
        assert!(serde_json::from_str::<Value>(&json).is_err());
    }

    #[test]
    fn brackets_in_strings_are_not_nested() {
        let text = "[{\"".repeat(200);
        let json = to_json(&(&text, Some(&text))).unwrap();
        assert_eq!(depth(&json), 1);
        assert_eq!(
            serde_json::from_str::<(String, String)>(&json).unwrap().0,
            text
        );
    }

    #[derive(Serialize, Deserialize)]
    enum Shape {
        Unit,
        Newtype(f64),
        Tuple(u8, f32),
        Struct { of: Option<f64> },
    }

    #[derive(Serialize, Deserialize)]
    struct Everything {
        shapes: Vec<Shape>,
        by_name: BTreeMap<String, f64>,
        nothing: Option<()>,
        pair: (i8, f64),
        text: String,
    }

    fn everything() -> Everything {
        Everything {
            shapes: vec![
                Shape::Unit,
                Shape::Newtype(f64::MAX),
                Shape::Tuple(1, f32::MIN_POSITIVE),
                Shape::Struct { of: None },
            ],
            by_name: [("null".to_owned(), -0.0)].into(),
            nothing: None,
            pair: (-1, 5e-324),
            text: "NaN".to_owned(),
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_refused_wherever_it_is() {
        let json = to_json(&everything()).unwrap();
        serde_json::from_str::<Everything>(&json).unwrap();
        type Spoil = fn(&mut Everything, f64);
        let spoils: [(Spoil, &str); 5] = [
            (
                |all, bad| all.shapes[1] = Shape::Newtype(bad),
                " in `shapes[1]`",
            ),
            (
                |all, bad| all.shapes[2] = Shape::Tuple(1, bad as f32),
                " in `shapes[2][1]`",
            ),
            (
                |all, bad| all.shapes[3] = Shape::Struct { of: Some(bad) },
                " in `shapes[3].of`",
            ),
            (
                // A key is of the application's data, and not for logs.
                |all, bad| all.by_name.extend([("secret".to_owned(), bad)]),
                " in `by_name[..]`",
            ),
            (|all, bad| all.pair.1 = bad, " in `pair[1]`"),
        ];
        for (spoil, place) in spoils {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut all = everything();
                spoil(&mut all, bad);
                let refused = to_json(&all).unwrap_err().to_string();
                assert!(
                    refused.starts_with(&format!("the number{place} is infinite or NaN")),
                    "{refused}"
                );
            }
        }
        let refused = to_json(&f32::NAN).unwrap_err().to_string();
        assert!(refused.starts_with("the number is infinite"), "{refused}");
    }
}
