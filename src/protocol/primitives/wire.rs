//! The encoding of each type on the wire.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::protocol::primitives::{Decoder, Encoder, Records, Str};
use crate::protocol::schema::{Context, Kind, Nullable, VALUE, Wire};
use crate::types::Uuid;

/// Declares the encoding of a number.
macro_rules! number {
    ($type:ty, $kind:ident, $put:ident, $get:ident) => {
        impl Wire for $type {
            const KIND: Kind = Kind::$kind;
            const MIN_BYTES: usize = size_of::<$type>();

            fn write(&self, encoder: &mut Encoder, _: Context) -> Result<()> {
                encoder.$put(*self);
                Ok(())
            }

            fn read(decoder: &mut Decoder, _: Context) -> Result<Self> {
                decoder.$get()
            }
        }
    };
}

number!(bool, Bool, put_bool, get_bool);
number!(i8, Int8, put_i8, get_i8);
number!(i16, Int16, put_i16, get_i16);
number!(u16, Uint16, put_u16, get_u16);
number!(i32, Int32, put_i32, get_i32);
number!(u32, Uint32, put_u32, get_u32);
number!(i64, Int64, put_i64, get_i64);
number!(f64, Float64, put_f64, get_f64);

impl Wire for Uuid {
    const KIND: Kind = Kind::Uuid;
    const MIN_BYTES: usize = 16;

    fn write(&self, encoder: &mut Encoder, _: Context) -> Result<()> {
        encoder.put_slice(&self.0);
        Ok(())
    }

    fn read(decoder: &mut Decoder, _: Context) -> Result<Self> {
        decoder.get_16_bytes().map(Self)
    }
}

/// Implements [`Wire`] by [`Nullable`], refusing null.
macro_rules! never_null {
    () => {
        fn write(&self, encoder: &mut Encoder, context: Context) -> Result<()> {
            Self::write_nullable(Some(self), encoder, context)
        }

        fn read(decoder: &mut Decoder, context: Context) -> Result<Self> {
            Self::read_nullable(decoder, context)?
                .ok_or_else(|| Error::malformed(VALUE, "null where a value is required"))
        }
    };
}

impl Wire for Str {
    const KIND: Kind = Kind::String;

    never_null!();
}

impl Nullable for Str {
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, context: Context) -> Result<()> {
        let bytes = value.map(Self::as_shared_bytes);
        encoder.put_string_length(bytes.map(Bytes::len), context.flexible)?;
        if let Some(bytes) = bytes {
            encoder.put_slice(bytes);
        }
        Ok(())
    }

    fn read_nullable(decoder: &mut Decoder, context: Context) -> Result<Option<Self>> {
        decoder.get_string(context.flexible)
    }
}

impl Wire for Bytes {
    const KIND: Kind = Kind::Bytes;

    never_null!();
}

impl Nullable for Bytes {
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, context: Context) -> Result<()> {
        encoder.put_length(value.map(Self::len), context.flexible)?;
        if let Some(bytes) = value {
            encoder.put_bytes(bytes);
        }
        Ok(())
    }

    fn read_nullable(decoder: &mut Decoder, context: Context) -> Result<Option<Self>> {
        decoder.get_bytes(context.flexible)
    }
}

impl Wire for Records {
    const KIND: Kind = Kind::Records;

    never_null!();
}

impl Nullable for Records {
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, context: Context) -> Result<()> {
        encoder.put_length(value.map(Self::len), context.flexible)?;
        for chunk in value.into_iter().flat_map(Self::chunks) {
            encoder.put_chunk(chunk);
        }
        Ok(())
    }

    fn read_nullable(decoder: &mut Decoder, context: Context) -> Result<Option<Self>> {
        Ok(decoder.get_bytes(context.flexible)?.map(Self::from))
    }
}

impl<T: Wire> Wire for Vec<T> {
    const KIND: Kind = Kind::Array(&T::KIND);

    never_null!();
}

impl<T: Wire> Nullable for Vec<T> {
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, context: Context) -> Result<()> {
        encoder.put_length(value.map(Self::len), context.flexible)?;
        for element in value.into_iter().flatten() {
            element.write(encoder, context.element())?;
        }
        Ok(())
    }

    fn read_nullable(decoder: &mut Decoder, context: Context) -> Result<Option<Self>> {
        let Some(count) = decoder.get_count(context.flexible, T::MIN_BYTES, size_of::<T>())? else {
            return Ok(None);
        };
        // Charged to the decoder's budget.
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(decoder, context.element())?);
        }
        Ok(Some(elements))
    }
}

/// Writes a structure that may be null: a byte that says whether it is null, then the structure.
pub(crate) fn write_nullable_structure<T: Wire>(
    value: Option<&T>,
    encoder: &mut Encoder,
    context: Context,
) -> Result<()> {
    let Some(value) = value else {
        encoder.put_i8(-1);
        return Ok(());
    };
    encoder.put_i8(1);
    value.write(encoder, context)
}

/// Reads a structure that may be null.
pub(crate) fn read_nullable_structure<T: Wire>(
    decoder: &mut Decoder,
    context: Context,
) -> Result<Option<T>> {
    if decoder.get_i8()? < 0 { Ok(None) } else { T::read(decoder, context).map(Some) }
}
