//! Looks for numbers that are infinite or NaN: a serializer that only walks.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// Where the first such number is, as a text that goes on behind "the number"; `None` if
/// there is none.
pub(super) fn unreadable_number<T: Serialize + ?Sized>(value: &T) -> Option<String> {
    match value.serialize(Walk) {
        Err(Found::Number(path)) if path.is_empty() => Some(String::new()),
        Err(Found::Number(path)) => {
            let path: String = path.into_iter().rev().collect();
            Some(format!(" in `{}`", path.trim_start_matches('.')))
        }
        Ok(()) | Err(Found::Other) => None,
    }
}

struct Walk;

/// Why a walk ends early.
#[derive(Debug)]
enum Found {
    /// A number that is not finite; the steps to it, the last first.
    Number(Vec<String>),
    /// The value says that it has no JSON. Whoever writes it hears of that.
    Other,
}

impl Found {
    fn at(self, step: impl FnOnce() -> String) -> Self {
        match self {
            Self::Number(mut path) => {
                path.push(step());
                Self::Number(path)
            }
            Self::Other => Self::Other,
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the walk ends here")
    }
}

impl std::error::Error for Found {}

impl Error for Found {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

type Walked = Result<(), Found>;

/// The items of what has several.
struct Items {
    next: usize,
}

impl Items {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        let n = self.next;
        self.next += 1;
        value
            .serialize(Walk)
            .map_err(|found| found.at(|| format!("[{n}]")))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Walked {
        value
            .serialize(Walk)
            .map_err(|found| found.at(|| format!(".{name}")))
    }
}

macro_rules! leaves {
    ($($name:ident: $type:ty,)*) => {
        $(fn $name(self, _: $type) -> Walked {
            Ok(())
        })*
    };
}

impl Serializer for Walk {
    type Ok = ();
    type Error = Found;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Items;
    type SerializeStruct = Items;
    type SerializeStructVariant = Items;

    leaves! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_f32(self, number: f32) -> Walked {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Walked {
        match number.is_finite() {
            true => Ok(()),
            false => Err(Found::Number(Vec::new())),
        }
    }

    fn serialize_none(self) -> Walked {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Walked {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Walked {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Walked {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Walked {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Items, Found> {
        Ok(Items { next: 0 })
    }
}

macro_rules! items {
    ($($trait:ident::$method:ident,)*) => {
        $(impl $trait for Items {
            type Ok = ();
            type Error = Found;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
                self.item(value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

items! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! fields {
    ($($trait:ident,)*) => {
        $(impl $trait for Items {
            type Ok = ();
            type Error = Found;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Walked {
                self.field(name, value)
            }

            fn end(self) -> Walked {
                Ok(())
            }
        })*
    };
}

fields! {
    SerializeStruct,
    SerializeStructVariant,
}

impl SerializeMap for Items {
    type Ok = ();
    type Error = Found;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Walked {
        // One that is not finite has been refused.
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Walked {
        // The key is of the application's data, and no business of a log.
        let walked = value.serialize(Walk);
        walked.map_err(|found| found.at(|| "[..]".to_owned()))
    }

    fn end(self) -> Walked {
        Ok(())
    }
}
