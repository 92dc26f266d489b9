//! The name of a kind of job, as applications use it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names the kind of work that a job is; it selects the initializer.
///
/// 1 to 255 bytes without NUL. Anything else is refused when a job is spawned
/// and when polling starts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobType(job_engine::JobType);

impl JobType {
    /// A type whose name is known at compile time.
    pub const fn new(name: &'static str) -> Self {
        Self(job_engine::JobType::new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn as_engine(&self) -> &job_engine::JobType {
        &self.0
    }
}

impl From<String> for JobType {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<job_engine::JobType> for JobType {
    fn from(job_type: job_engine::JobType) -> Self {
        Self(job_type)
    }
}

impl fmt::Display for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "json-schema")]
impl schemars::JsonSchema for JobType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "JobType".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod as_text {
    //! In a database, a type is a text, in every database that has texts.

    use sqlx::encode::IsNull;
    use sqlx::error::BoxDynError;
    use sqlx::{Database, Decode, Encode, Type};

    use super::JobType;

    impl<D: Database> Type<D> for JobType
    where
        String: Type<D>,
    {
        fn type_info() -> D::TypeInfo {
            String::type_info()
        }

        fn compatible(of: &D::TypeInfo) -> bool {
            String::compatible(of)
        }
    }

    impl<'q, D: Database> Encode<'q, D> for JobType
    where
        String: Encode<'q, D>,
    {
        fn encode_by_ref(
            &self,
            buffer: &mut <D as Database>::ArgumentBuffer<'q>,
        ) -> Result<IsNull, BoxDynError> {
            self.as_str().to_owned().encode_by_ref(buffer)
        }
    }

    impl<'r, D: Database> Decode<'r, D> for JobType
    where
        String: Decode<'r, D>,
    {
        fn decode(value: <D as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
            String::decode(value).map(Self::from)
        }
    }
}
