//! One declared setting: [`Definition`], with its type, its validation and its support.

use std::fmt;

use crate::error::{Error, ErrorCode};

/// The type of a value; the numbers are those of `DescribeConfigs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// A 32-bit integer.
    Int = 3,
    /// A 16-bit integer.
    Short = 4,
    /// A 64-bit integer.
    Long = 5,
    /// A floating-point number.
    Double = 6,
    /// Values separated by commas.
    List = 7,
    /// The name of a class of the Java implementation.
    Class = 8,
    /// A secret; it is never shown.
    Password = 9,
}

/// Where a value came from; the numbers are those of `DescribeConfigs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic = 1,
    /// Set at run time for one broker.
    DynamicBroker = 2,
    /// Set at run time for all brokers.
    DynamicDefaultBroker = 3,
    /// Given when the broker was started.
    StaticBroker = 4,
    /// Not set anywhere.
    Default = 5,
    /// Set on the group.
    Group = 8,
}

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A topic.
    Topic,
    /// A broker, or all of them.
    Broker,
    /// A group.
    Group,
}

/// How a broker setting can be changed while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only with a restart.
    ReadOnly,
    /// For one broker, or for all.
    PerBroker,
    /// For all brokers, or for a single one to try it out.
    ClusterWide,
}

/// Which values a setting accepts, beyond those of its type.
#[derive(Clone, Copy, Debug)]
pub enum Validator {
    /// Every value of the type.
    Any,
    /// A whole number not below this.
    AtLeast(i64),
    /// A whole number in this closed range.
    Between(i64, i64),
    /// -1, or a whole number in this closed range.
    MinusOneOrBetween(i64, i64),
    /// A fraction in this closed range.
    Fraction(f64, f64),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of these words: at least one, no duplicates.
    EachOneOf(&'static [&'static str]),
    /// A list of these words: possibly empty, no duplicates.
    AnyOf(&'static [&'static str]),
    /// A custom check.
    Check(fn(&str) -> Result<(), String>),
}

/// Whether this version of ottla acts on a setting.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// Every valid value takes effect.
    Full,
    /// Only these values are accepted, because others ask for a feature that does not exist yet.
    Only {
        /// The accepted values.
        values: &'static [&'static str],
        /// What the other values would need, as the object of the verb "needs".
        feature: &'static str,
    },
    /// Every valid value is accepted, and none has an effect: the setting tunes something that does not exist here.
    Idle,
}

/// A broker setting that gives the default of a topic setting.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    /// The broker setting.
    pub name: &'static str,
    /// One of its units, in units of the topic setting (hours to milliseconds: 3,600,000).
    pub factor: i64,
}

/// One declared setting.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Kafka's dotted name.
    pub name: &'static str,
    /// The type of its value.
    pub kind: ConfigType,
    /// The value when it is not set; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// The values that it accepts.
    pub validator: Validator,
    /// What it belongs to.
    pub scope: Scope,
    /// How it can be changed at run time (topic settings always can).
    pub update: UpdateMode,
    /// Whether its value must not be shown.
    pub sensitive: bool,
    /// Whether this version acts on it.
    pub support: Support,
    /// What it does.
    pub documentation: &'static str,
    /// The broker settings that give the default of a topic setting, strongest first.
    pub synonyms: &'static [Synonym],
}

impl Definition {
    /// A topic setting whose default comes from `synonyms`, otherwise from `default`.
    pub(super) const fn topic(
        name: &'static str,
        kind: ConfigType,
        default: &'static str,
        validator: Validator,
        synonyms: &'static [Synonym],
        documentation: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default: Some(default),
            validator,
            scope: Scope::Topic,
            update: UpdateMode::ClusterWide,
            sensitive: false,
            support: Support::Full,
            documentation,
            synonyms,
        }
    }

    /// A group setting, as [`Definition::topic`].
    pub(super) const fn group(
        name: &'static str,
        kind: ConfigType,
        default: &'static str,
        validator: Validator,
        synonyms: &'static [Synonym],
        documentation: &'static str,
    ) -> Self {
        let topic = Self::topic(name, kind, default, validator, synonyms, documentation);
        Self { scope: Scope::Group, ..topic }
    }

    /// A broker setting.
    pub(super) const fn broker(
        name: &'static str,
        kind: ConfigType,
        default: Option<&'static str>,
        validator: Validator,
        update: UpdateMode,
        documentation: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            validator,
            scope: Scope::Broker,
            update,
            sensitive: false,
            support: Support::Full,
            documentation,
            synonyms: &[],
        }
    }

    /// The same setting, accepting only `values` until `feature` exists.
    pub(super) const fn only(
        mut self,
        values: &'static [&'static str],
        feature: &'static str,
    ) -> Self {
        self.support = Support::Only { values, feature };
        self
    }

    /// The same setting, without an effect.
    pub(super) const fn idle(mut self) -> Self {
        self.support = Support::Idle;
        self.sensitive = matches!(self.kind, ConfigType::Password);
        self
    }

    /// Whether a value is accepted although it has no effect.
    #[must_use]
    pub fn is_idle(&self, value: &str) -> bool {
        matches!(self.support, Support::Idle) && self.default.unwrap_or_default() != value.trim()
    }

    /// Checks a value: type, limits, support.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the value and what is accepted.
    pub fn validate(&self, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        let refuse = |why: String| ConfigError::invalid(self, value, &why);
        self.check_type(value).map_err(refuse)?;
        self.check_limits(value).map_err(refuse)?;
        if let Support::Only { values, feature } = self.support
            && self.default != Some(value)
            && !values.contains(&value)
        {
            return Err(self.unsupported(value, values, feature));
        }
        Ok(())
    }

    fn unsupported(&self, value: &str, values: &[&str], feature: &str) -> ConfigError {
        let accepted = if values.is_empty() {
            self.default.map_or_else(|| "no value".to_owned(), |default| format!("\"{default}\""))
        } else {
            values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ")
        };
        let name = self.name;
        ConfigError::new(
            name,
            format!(
                "{name}={value} needs {feature}, which this version of ottla does not have; \
                 accepted: {accepted}"
            ),
        )
    }

    fn check_type(&self, value: &str) -> Result<(), String> {
        let number = |fits: bool| {
            if fits { Ok(()) } else { Err(format!("not a number of type {}", self.kind)) }
        };
        match self.kind {
            ConfigType::Boolean => match value.to_ascii_lowercase().as_str() {
                "true" | "false" => Ok(()),
                _ => Err("must be true or false".to_owned()),
            },
            ConfigType::Int => number(value.parse::<i32>().is_ok()),
            ConfigType::Short => number(value.parse::<i16>().is_ok()),
            ConfigType::Long => number(value.parse::<i64>().is_ok()),
            ConfigType::Double => number(value.parse::<f64>().is_ok_and(f64::is_finite)),
            ConfigType::String | ConfigType::List | ConfigType::Class | ConfigType::Password => {
                Ok(())
            }
        }
    }

    fn check_limits(&self, value: &str) -> Result<(), String> {
        let number = || value.parse::<i64>().map_err(|error| error.to_string());
        match self.validator {
            Validator::Any => Ok(()),
            Validator::AtLeast(least) => {
                let fits = number()? >= least;
                if fits { Ok(()) } else { Err(format!("must be at least {least}")) }
            }
            Validator::Between(least, most) => {
                let fits = (least..=most).contains(&number()?);
                if fits { Ok(()) } else { Err(format!("must be from {least} to {most}")) }
            }
            Validator::MinusOneOrBetween(least, most) => {
                let given = number()?;
                let fits = given == -1 || (least..=most).contains(&given);
                if fits { Ok(()) } else { Err(format!("must be -1 or from {least} to {most}")) }
            }
            Validator::Fraction(least, most) => {
                let given = value.parse::<f64>().map_err(|error| error.to_string())?;
                let fits = given >= least && given <= most;
                if fits { Ok(()) } else { Err(format!("must be from {least} to {most}")) }
            }
            Validator::OneOf(words) => {
                let fits = words.contains(&value);
                if fits { Ok(()) } else { Err(format!("must be one of {}", words.join(", "))) }
            }
            Validator::EachOneOf(words) => check_words(value, words, 1),
            Validator::AnyOf(words) => check_words(value, words, 0),
            Validator::Check(check) => check(value),
        }
    }
}

fn check_words(value: &str, words: &[&str], least: usize) -> Result<(), String> {
    let mut seen = Vec::new();
    for word in split_list(value) {
        if !words.contains(&word) {
            return Err(format!("\"{word}\" is not one of {}", words.join(", ")));
        }
        if seen.contains(&word) {
            return Err(format!("\"{word}\" is listed twice"));
        }
        seen.push(word);
    }
    if seen.len() < least {
        return Err(format!("must name one of {}", words.join(", ")));
    }
    Ok(())
}

/// The elements of a LIST value.
pub(super) fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|element| !element.is_empty())
}

impl ConfigType {
    /// The number in `DescribeConfigs`.
    #[must_use]
    pub const fn to_i8(self) -> i8 {
        self as i8
    }
}

impl ConfigSource {
    /// The number in `DescribeConfigs`.
    #[must_use]
    pub const fn to_i8(self) -> i8 {
        self as i8
    }
}

impl fmt::Display for ConfigType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        })
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::Group => "DYNAMIC_GROUP_CONFIG",
        })
    }
}

/// Why a setting was refused. A client sees it as `INVALID_CONFIG`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The setting.
    pub name: String,
    /// What is wrong with it and what would be accepted.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(name: &str, message: String) -> Self {
        Self { name: name.to_owned(), message }
    }

    fn invalid(definition: &Definition, value: &str, why: &str) -> Self {
        let name = definition.name;
        let shown = if definition.sensitive { "[hidden]" } else { value };
        Self::new(name, format!("invalid value {shown} for configuration {name}: {why}"))
    }

    pub(super) fn unknown(scope: Scope, name: &str, nearest: Option<&str>) -> Self {
        let what = match scope {
            Scope::Topic => "topic",
            Scope::Broker => "broker",
            Scope::Group => "group",
        };
        let hint = nearest.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        Self::new(name, format!("unknown {what} config name: {name}{hint}"))
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::kafka(ErrorCode::InvalidConfig, error.message)
    }
}
