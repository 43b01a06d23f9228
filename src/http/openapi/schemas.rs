//! The named schemas, collected from all operations, and made as strict as our structs are.

use std::collections::BTreeMap;

use utoipa::ToSchema;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayItems, OneOfBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr};

/// A schema by its name.
pub type Named = (String, RefOr<Schema>);

/// What a body may be, and the named schemas that it refers to.
pub struct Shape {
    pub schema: RefOr<Schema>,
    pub named: Vec<Named>,
}

impl Shape {
    /// The schema of that type, by its name.
    pub fn of<T: ToSchema>() -> Self {
        let mut named = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut named);
        let schema = Ref::from_schema_name(T::name()).into();
        Self { schema, named }
    }

    /// Either this or that.
    pub fn or<T: ToSchema>(self) -> Self {
        let other = Self::of::<T>();
        let either = OneOfBuilder::new().item(self.schema).item(other.schema);
        Self {
            schema: Schema::from(either.build()).into(),
            named: [self.named, other.named].concat(),
        }
    }

    /// Or any value that is no object, which is ignored.
    pub fn or_no_object(mut self) -> Self {
        use Type::{Array, Boolean, Integer, Null, Number, Object, String};
        let any = [Object, Array, Boolean, Integer, Null, Number, String];
        if let Some((_, RefOr::T(Schema::Object(object)))) = self.named.first_mut() {
            object.schema_type = SchemaType::Array(any.to_vec());
        }
        self
    }

    /// With members of other names too, which are ignored.
    pub fn ignoring_others(mut self) -> Self {
        if let Some((_, RefOr::T(Schema::Object(object)))) = self.named.first_mut() {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
        }
        self
    }

    /// Text that is not JSON.
    pub fn text() -> Self {
        let text = ObjectBuilder::new().schema_type(Type::String);
        Self {
            schema: text.build().into(),
            named: Vec::new(),
        }
    }
}

/// All named schemas. By name, so that one that two operations share is there once.
#[derive(Default)]
pub struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    /// Adds them.
    ///
    /// # Panics
    /// When a name stands for two schemas: a bug that the first start finds.
    pub fn extend(&mut self, named: impl IntoIterator<Item = Named>) {
        for (name, schema) in named {
            if let Some(known) = self.0.get(&name) {
                assert!(*known == schema, "two schemas are named {name}");
            }
            self.0.insert(name, schema);
        }
    }

    /// With each object closed, unless it says what else it may hold: a member that an answer has and its
    /// schema has not is then a mistake that tests find.
    pub fn closed(self) -> impl Iterator<Item = Named> {
        self.0.into_iter().map(|(name, mut schema)| {
            close(&mut schema);
            (name, schema)
        })
    }
}

fn close(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else {
        return;
    };
    match schema {
        Schema::Object(object) => {
            if !object.properties.is_empty() && object.additional_properties.is_none() {
                object.additional_properties =
                    Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
            for property in object.properties.values_mut() {
                without_null(property);
                close(property);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                close(items);
            }
        }
        Schema::OneOf(either) => either.items.iter_mut().for_each(close),
        Schema::AllOf(both) => both.items.iter_mut().for_each(close),
        Schema::AnyOf(some) => some.items.iter_mut().for_each(close),
        _ => {}
    }
}

/// A member of ours that may be absent is never null.
fn without_null(property: &mut RefOr<Schema>) {
    let RefOr::T(schema) = property else {
        return;
    };
    match schema {
        Schema::Object(object) => not_null(&mut object.schema_type),
        Schema::Array(array) => not_null(&mut array.schema_type),
        Schema::OneOf(either) => {
            either.items.retain(|item| !is_null(item));
            if let [RefOr::Ref(only)] = either.items.as_slice() {
                let mut only = only.clone();
                if let Some(description) = &either.description {
                    only.description.clone_from(description);
                }
                *property = RefOr::Ref(only);
            }
        }
        _ => {}
    }
}

fn not_null(kind: &mut SchemaType) {
    if let SchemaType::Array(types) = kind {
        types.retain(|it| *it != Type::Null);
        if let [only] = types.as_slice() {
            *kind = SchemaType::Type(only.clone());
        }
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

#[cfg(test)]
#[allow(unused_qualifications)] // the derive's own
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(ToSchema)]
    #[allow(dead_code)] // for its schema
    struct Inner {
        #[schema(nullable)]
        a: Option<u8>,
    }

    #[derive(ToSchema)]
    #[allow(dead_code)] // for its schema
    struct Outer {
        /// Why it is there.
        inner: Option<Inner>,
        texts: Option<Vec<String>>,
    }

    #[test]
    fn objects_are_closed_and_members_never_null() {
        let mut schemas = Schemas::default();
        schemas.extend(Shape::of::<Outer>().named);
        let told: BTreeMap<_, _> = schemas.closed().collect();
        let told = serde_json::to_value(told).expect("JSON");
        assert_eq!(told["Inner"]["additionalProperties"], json!(false));
        assert_eq!(told["Inner"]["properties"]["a"]["type"], "integer");
        let outer = &told["Outer"]["properties"];
        let inner =
            json!({"$ref": "#/components/schemas/Inner", "description": "Why it is there."});
        assert_eq!(outer["inner"], inner);
        assert_eq!(outer["texts"]["type"], "array");
    }

    #[test]
    #[should_panic(expected = "two schemas are named A")]
    fn a_name_stands_for_one_schema() {
        let text = Shape::text().schema;
        let number = ObjectBuilder::new().schema_type(Type::Number).build();
        let mut schemas = Schemas::default();
        schemas.extend([("A".to_owned(), text), ("A".to_owned(), number.into())]);
    }
}
