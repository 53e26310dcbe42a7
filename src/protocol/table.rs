//! `message!`: from a table to a struct, its defaults, its encoder and its decoder.
//!
//! One line per field:
//!
//! ```text
//! field: Type = default, "KafkaName" [versions] nullable [versions] tag N [versions], ignorable;
//! ```
//!
//! where the default, `nullable`, `tag` and `ignorable` are left out when Kafka's definition has
//! none. Versions are in Kafka's notation: `[3]`, `[0-12]`, `[9+]`. The Rust type determines the
//! encoding (see `schema::Wire`). `struct Ours as "Theirs"` distinguishes two structures of one
//! API to which Kafka gives the same name. A struct with `versions` and `flexible` is a
//! [`Message`].
//!
//! [`Message`]: crate::protocol::schema::Message

/// A range of versions in Kafka's notation.
macro_rules! versions {
    () => {
        $crate::protocol::schema::Versions::NONE
    };
    (none) => {
        $crate::protocol::schema::Versions::NONE
    };
    ($only:literal) => {
        $crate::protocol::schema::Versions::between($only, $only)
    };
    ($min:literal +) => {
        $crate::protocol::schema::Versions::since($min)
    };
    ($min:literal - $max:literal) => {
        $crate::protocol::schema::Versions::between($min, $max)
    };
}

/// The given value, or the default of the type.
macro_rules! value_or_default {
    () => {
        ::std::default::Default::default()
    };
    ($value:expr) => {
        $value
    };
}

/// Kafka's name of a structure.
macro_rules! name_of {
    ($name:ident) => {
        stringify!($name)
    };
    ($name:ident $renamed:literal) => {
        $renamed
    };
}

/// Whether the word `ignorable` is present.
macro_rules! is_ignorable {
    () => {
        false
    };
    (ignorable) => {
        true
    };
}

/// See the documentation of this module.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        struct $name:ident $(as $renamed:literal)? $(versions [$($valid:tt)*] flexible [$($flexible:tt)*])? {
            $(
                $field:ident : $type:ty $(= $default:expr)?, $wire:literal [$($versions:tt)*]
                $(nullable [$($nullable:tt)*])? $(tag $tag:literal [$($tagged:tt)*])?
                $(, $ignorable:ident)?;
            )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                #[doc = concat!("Kafka's `", $wire, "`, versions ", stringify!($($versions)*), ".")]
                pub $field: $type,
            )*
        }

        // A separate scope: rustdoc would take constants of `$name` for its fields.
        const _: () = {
            struct Fields;

            #[allow(non_upper_case_globals, reason = "one constant per field, named after it")]
            impl Fields {
                $(
                    const $field: $crate::protocol::schema::Field =
                        $crate::protocol::schema::Field {
                            name: $wire,
                            kind: <$type as $crate::protocol::schema::Wire>::KIND,
                            optional: <$type as $crate::protocol::schema::Wire>::OPTIONAL,
                            versions: versions!($($versions)*),
                            nullable: versions!($($($nullable)*)?),
                            tagged: versions!($($($tagged)*)?),
                            tag: 0 $(+ $tag)?,
                            ignorable: is_ignorable!($($ignorable)?),
                            default: stringify!($($default)?),
                        };
                )*
                const STRUCTURE: $crate::protocol::schema::Structure =
                    $crate::protocol::schema::Structure {
                        name: name_of!($name $($renamed)?),
                        fields: &[$(Fields::$field),*],
                    };
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($field: value_or_default!($($default)?)),* }
                }
            }

            impl $crate::protocol::schema::Wire for $name {
                const KIND: $crate::protocol::schema::Kind =
                    $crate::protocol::schema::Kind::Struct(&Fields::STRUCTURE);

                fn write(
                    &self,
                    encoder: &mut $crate::protocol::primitives::Encoder,
                    context: $crate::protocol::schema::Context,
                ) -> $crate::error::Result<()> {
                    let mut tags = $crate::protocol::schema::Tags::new();
                    $(
                        $crate::protocol::schema::write_field(
                            &self.$field,
                            &Fields::$field,
                            || value_or_default!($($default)?),
                            (&mut *encoder, &mut tags),
                            context,
                        )?;
                    )*
                    encoder.put_tags(tags, context.flexible)
                }

                fn read(
                    decoder: &mut $crate::protocol::primitives::Decoder,
                    context: $crate::protocol::schema::Context,
                ) -> $crate::error::Result<Self> {
                    let mut this = Self::default();
                    $(
                        $crate::protocol::schema::read_field(
                            &mut this.$field, &Fields::$field, decoder, context,
                        )?;
                    )*
                    if context.flexible {
                        decoder.tags(&mut |tag, decoder| {
                            let _ = (tag, &decoder);
                            $( $(
                                let _: u32 = $tag;
                                if $crate::protocol::schema::read_tagged(
                                    &mut this.$field, &Fields::$field, tag, decoder, context,
                                )? {
                                    return Ok(true);
                                }
                            )? )*
                            Ok(false)
                        })?;
                    }
                    Ok(this)
                }
            }

            impl $crate::protocol::schema::Nullable for $name {
                fn write_nullable(
                    value: Option<&Self>,
                    encoder: &mut $crate::protocol::primitives::Encoder,
                    context: $crate::protocol::schema::Context,
                ) -> $crate::error::Result<()> {
                    $crate::protocol::primitives::write_nullable_structure(value, encoder, context)
                }

                fn read_nullable(
                    decoder: &mut $crate::protocol::primitives::Decoder,
                    context: $crate::protocol::schema::Context,
                ) -> $crate::error::Result<Option<Self>> {
                    $crate::protocol::primitives::read_nullable_structure(decoder, context)
                }
            }

            $(
                impl $crate::protocol::schema::Message for $name {
                    const SCHEMA: $crate::protocol::schema::Schema = $crate::protocol::schema::Schema {
                        versions: versions!($($valid)*),
                        flexible: versions!($($flexible)*),
                        structure: &Fields::STRUCTURE,
                    };

                    fn encode(
                        &self,
                        encoder: &mut $crate::protocol::primitives::Encoder,
                        version: i16,
                    ) -> $crate::error::Result<()> {
                        let context = Self::SCHEMA.context(version)?;
                        $crate::protocol::schema::Wire::write(self, encoder, context)
                    }

                    fn decode(
                        decoder: &mut $crate::protocol::primitives::Decoder,
                        version: i16,
                    ) -> $crate::error::Result<Self> {
                        let context = Self::SCHEMA.context(version)?;
                        <Self as $crate::protocol::schema::Wire>::read(decoder, context)
                    }
                }
            )?
        };
    )* };
}
