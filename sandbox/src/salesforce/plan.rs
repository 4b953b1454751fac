//! A query with its object and fields found: what to read and to print.

use super::errors::ApiError;
use super::filter::Test;
use super::reach::{End, Reach, Scope, Step, no_object};
use super::schema::{Lack, Schema, Source, Type};
use super::soql::{FieldGroup, Function, Operator, Path, Query, Selected, malformed};

/// The most rows OFFSET may skip.
const FARTHEST: u64 = 2_000;

/// A query that can be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The object whose rows are read.
    pub object: usize,
    /// What is printed.
    pub output: Output,
    /// Which rows.
    pub test: Option<Test>,
    /// In which order.
    pub order: Vec<Sort>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Without the first ones.
    pub offset: u64,
}

/// What a query prints.
#[derive(Clone, Debug)]
pub enum Output {
    /// Records.
    Rows(Vec<Column>),
    /// Nothing but how many there are.
    Count,
    /// A line for each group of rows.
    Groups {
        /// What the rows are grouped by.
        keys: Vec<Reach>,
        /// Names and contents of the lines.
        columns: Vec<(String, Summary)>,
        /// Which of the lines.
        having: GroupTests,
        /// In which order.
        order: Vec<GroupSort>,
    },
}

/// Conditions on groups: whether one of them is enough, and the conditions.
pub type GroupTests = (bool, Vec<(Function, Reach, Operator, f64)>);

/// One key of the order of groups.
#[derive(Clone, Debug)]
pub struct GroupSort {
    /// By what.
    pub by: Summary,
    /// Largest first.
    pub descending: bool,
    /// Nulls at the end.
    pub nulls_last: bool,
}

/// One value of a group's line.
#[derive(Clone, Debug)]
pub enum Summary {
    /// The group's own value of this key.
    Key(usize),
    /// A function over the group's rows.
    Call(Function, Reach),
}

/// One printed member of a record.
#[derive(Clone, Debug)]
pub enum Column {
    /// A field of the record.
    Own {
        /// The member's name.
        name: String,
        /// The field.
        field: u16,
    },
    /// A file's bytes: the address to fetch them from.
    Blob {
        /// The member's name.
        name: String,
    },
    /// A value that follows from other records.
    Formula {
        /// The member's name.
        name: String,
        /// The field.
        reach: Reach,
    },
    /// A field that any object has.
    Common {
        /// The member's name and the field's.
        name: String,
    },
    /// Members of a parent.
    Parent {
        /// The member's name.
        name: String,
        /// The reference to the parent.
        step: Step,
        /// Whether the parent can be of several objects.
        many: bool,
        /// The parent's members.
        columns: Vec<Column>,
    },
    /// Members of a parent that depend on what it is.
    TypeOf {
        /// The member's name.
        name: String,
        /// The reference to the parent.
        step: Step,
        /// Object and its members.
        when: Vec<(usize, Vec<Column>)>,
        /// The members of any other object.
        otherwise: Vec<Column>,
    },
    /// The records that point here.
    Children {
        /// The member's name.
        name: String,
        /// The children's reference to the record.
        by: u16,
        /// The query of the children.
        plan: Box<Plan>,
    },
}

impl Column {
    /// The column of a field of the record's own.
    pub fn own(schema: &Schema, object: usize, field: u16) -> Column {
        let described = &schema.objects[object].fields[usize::from(field)];
        let name = described.name.clone();
        match described.source {
            Source::Blob => Column::Blob { name },
            Source::Formula => Column::Formula {
                name,
                reach: Reach::of(object, field),
            },
            _ => Column::Own { name, field },
        }
    }

    fn name(&self) -> &str {
        match self {
            Column::Own { name, .. }
            | Column::Blob { name }
            | Column::Formula { name, .. }
            | Column::Common { name }
            | Column::Parent { name, .. }
            | Column::TypeOf { name, .. }
            | Column::Children { name, .. } => name,
        }
    }
}

/// One key of the order.
#[derive(Clone, Debug)]
pub struct Sort {
    /// By what.
    pub by: Reach,
    /// Largest first.
    pub descending: bool,
    /// Nulls at the end.
    pub nulls_last: bool,
}

impl Plan {
    /// Finds object and fields of a query; `text` is the query for errors.
    pub fn compile(schema: &Schema, query: &Query, text: &str) -> Result<Plan, ApiError> {
        let name = query.from.parts.join(".");
        let object = schema
            .shown(&name)
            .ok_or_else(|| no_object(text, query.from.at, &name))?;
        compile(schema, query, text, object)
    }
}

fn compile(schema: &Schema, query: &Query, text: &str, object: usize) -> Result<Plan, ApiError> {
    let scope = Scope {
        schema,
        object,
        alias: query.alias.as_deref(),
        text,
    };
    let grouped = !query.group_by.is_empty()
        || query
            .select
            .iter()
            .any(|item| matches!(item, Selected::Aggregate { .. }));
    let output = if query.select == [Selected::CountAll] {
        Output::Count
    } else if grouped {
        groups(&scope, query)?
    } else {
        Output::Rows(rows(&scope, query)?)
    };
    let test = query
        .filter
        .as_ref()
        .map(|filter| Test::compile(&scope, filter))
        .transpose()?;
    if !schema.objects[object].can(Lack::Scan)
        && !query.nested
        && !query.is_narrow(&["ContentDocumentId", "LinkedEntityId", "Id"])
    {
        return Err(malformed(
            "Implementation restriction: ContentDocumentLink requires a filter by a single Id on ContentDocumentId or \
             LinkedEntityId using the equals operator or multiple Id's using the IN operator.",
        ));
    }
    let mut order = Vec::new();
    // Groups have an order of their own.
    let keys = if grouped { &[][..] } else { &query.order };
    for key in keys {
        if key.function.is_some() {
            return Err(not_grouped(&scope, "Ordered field", &key.field));
        }
        let by = scope.reach(&key.field)?;
        let field = by.field(schema);
        if !field.is_sortable() {
            return Err(ApiError::bad(
                "INVALID_FIELD",
                scope.located(
                    key.field.at,
                    &format!("field '{}' can not be sorted in a query call", field.name),
                ),
            ));
        }
        order.push(Sort {
            by,
            descending: key.descending,
            nulls_last: key.nulls_last,
        });
    }
    if query.offset > FARTHEST {
        return Err(ApiError::bad(
            "NUMBER_OUTSIDE_VALID_RANGE",
            "Maximum SOQL offset allowed is 2000",
        ));
    }
    Ok(Plan {
        object,
        output,
        test,
        order,
        limit: query.limit,
        offset: query.offset,
    })
}

fn rows(scope: &Scope<'_>, query: &Query) -> Result<Vec<Column>, ApiError> {
    let object = &scope.schema.objects[scope.object];
    let mut columns = Vec::new();
    for item in &query.select {
        match item {
            Selected::Field(path, alias) => {
                if alias.is_some() {
                    return Err(malformed("only aggregate expressions use field aliasing"));
                }
                let reach = scope.reach(path)?;
                add(scope.schema, &mut columns, &reach.steps, &reach.end, path)?;
            }
            Selected::Fields(group) => {
                if *group != FieldGroup::Standard && query.limit.is_none_or(|limit| limit > 200) {
                    return Err(malformed(
                        "The SOQL FIELDS function must have a LIMIT of at most 200",
                    ));
                }
                for (number, field) in object.fields.iter().enumerate() {
                    if group.has(field.is_custom())
                        && !columns
                            .iter()
                            .any(|column: &Column| column.name() == field.name)
                    {
                        columns.push(Column::own(scope.schema, scope.object, number as u16));
                    }
                }
            }
            Selected::Children(inner) => columns.push(children(scope, inner)?),
            Selected::TypeOf {
                parent,
                when,
                otherwise,
            } => columns.push(type_of(scope, parent, when, otherwise)?),
            Selected::CountAll => {
                return Err(malformed(
                    "COUNT() cannot be combined with other fields in the SELECT list",
                ));
            }
            Selected::Aggregate { .. } => {}
        }
    }
    Ok(columns)
}

/// Adds a field to the columns, inside the parents it is reached by.
fn add(
    schema: &Schema,
    columns: &mut Vec<Column>,
    steps: &[Step],
    end: &End,
    path: &Path,
) -> Result<(), ApiError> {
    let Some((step, rest)) = steps.split_first() else {
        let column = match end {
            End::Known(object, field) => Column::own(schema, *object, *field),
            End::Named(name) => Column::Common { name: name.clone() },
        };
        if columns.iter().any(|other| other.name() == column.name()) {
            return Err(malformed(format!(
                "duplicate field selected: {}",
                path.parts.join(".")
            )));
        }
        columns.push(column);
        return Ok(());
    };
    let field = &schema.objects[step.object].fields[usize::from(step.field)];
    let wanted = field.relationship.as_deref().unwrap_or_default();
    let at = match columns.iter().position(|column| column.name() == wanted) {
        Some(at) => at,
        None => {
            columns.push(Column::Parent {
                name: wanted.to_owned(),
                step: step.clone(),
                many: field.is_polymorphic(),
                columns: Vec::new(),
            });
            columns.len() - 1
        }
    };
    match &mut columns[at] {
        Column::Parent { columns, .. } => add(schema, columns, rest, end, path),
        _ => Ok(()),
    }
}

/// The column of a TYPEOF.
fn type_of(
    scope: &Scope<'_>,
    parent: &Path,
    when: &[(String, Vec<Path>)],
    otherwise: &[Path],
) -> Result<Column, ApiError> {
    let described = &scope.schema.objects[scope.object];
    let name = parent.parts.last().map_or("", String::as_str);
    let field = described
        .relationship(name)
        .filter(|field| described.fields[usize::from(*field)].is_polymorphic())
        .ok_or_else(|| {
            let message = format!("'{name}' is not a polymorphic relationship");
            ApiError::bad("INVALID_FIELD", scope.located(parent.at, &message))
        })?;
    let step = Step {
        object: scope.object,
        field,
    };
    let members = |object: usize, paths: &[Path]| {
        let inner = Scope {
            schema: scope.schema,
            object,
            alias: None,
            text: scope.text,
        };
        let mut columns = Vec::new();
        for path in paths {
            let reach = inner.reach(path)?;
            add(scope.schema, &mut columns, &reach.steps, &reach.end, path)?;
        }
        Ok::<_, ApiError>(columns)
    };
    let mut branches = Vec::new();
    for (name, paths) in when {
        let object = scope
            .schema
            .number(name)
            .ok_or_else(|| no_object(scope.text, parent.at, name))?;
        branches.push((object, members(object, paths)?));
    }
    let mut others = Vec::new();
    for path in otherwise {
        let name = path.parts.last().cloned().unwrap_or_default();
        others.push(Column::Common { name });
    }
    let field = &described.fields[usize::from(field)];
    Ok(Column::TypeOf {
        name: field.relationship.clone().unwrap_or_default(),
        step,
        when: branches,
        otherwise: others,
    })
}

/// The column of a query in the SELECT list; its FROM names a relationship.
fn children(scope: &Scope<'_>, inner: &Query) -> Result<Column, ApiError> {
    let parent = &scope.schema.objects[scope.object];
    let wanted = inner
        .from
        .parts
        .last()
        .map(String::as_str)
        .unwrap_or_default();
    let found = scope
        .schema
        .references_to(&parent.name)
        .into_iter()
        .find(|(object, at)| {
            scope.schema.objects[*object].fields[usize::from(*at)]
                .children
                .as_ref()
                .is_some_and(|name| name.eq_ignore_ascii_case(wanted))
        });
    let Some((object, by)) = found else {
        return Err(ApiError::bad(
            "INVALID_TYPE",
            scope.located(
                inner.from.at,
                &format!(
                    "Didn't understand relationship '{wanted}' in FROM part of query call. If you are attempting to \
                     use a custom relationship, be sure to append the '__r' after the custom relationship name. \
                     Please reference your WSDL or the describe call for the appropriate names."
                ),
            ),
        ));
    };
    let field = &scope.schema.objects[object].fields[usize::from(by)];
    let name = field.children.clone().unwrap_or_default();
    let plan = compile(scope.schema, inner, scope.text, object)?;
    if !matches!(plan.output, Output::Rows(_)) {
        return Err(malformed("only root queries support aggregate expressions"));
    }
    Ok(Column::Children {
        name,
        by,
        plan: Box::new(plan),
    })
}

fn groups(scope: &Scope<'_>, query: &Query) -> Result<Output, ApiError> {
    let keys: Vec<Reach> = query
        .group_by
        .iter()
        .map(|path| scope.reach(path))
        .collect::<Result<_, _>>()?;
    let mut unnamed = 0;
    let mut columns = Vec::new();
    for item in &query.select {
        let column = match item {
            Selected::Field(path, alias) => {
                let reach = scope.reach(path)?;
                let Some(key) = keys.iter().position(|key| *key == reach) else {
                    return Err(not_grouped(scope, "Field", path));
                };
                let name = alias
                    .clone()
                    .unwrap_or_else(|| reach.field(scope.schema).name);
                (name, Summary::Key(key))
            }
            Selected::Aggregate {
                function,
                field,
                alias,
            } => {
                let reach = scope.reach(field)?;
                let described = reach.field(scope.schema);
                let number = described.kind.is_double() || described.kind == Type::Int;
                if matches!(function, Function::Sum | Function::Avg) && !number {
                    let operator = format!("{function:?}").to_uppercase();
                    return Err(malformed(scope.located(
                        field.at,
                        &format!(
                            "field {} does not support aggregate operator {operator}",
                            described.name
                        ),
                    )));
                }
                let name = alias.clone().unwrap_or_else(|| {
                    unnamed += 1;
                    format!("expr{}", unnamed - 1)
                });
                (name, Summary::Call(*function, reach))
            }
            _ => {
                return Err(malformed(
                    "only aggregate expressions can be combined with GROUP BY",
                ));
            }
        };
        columns.push(column);
    }
    let mut having = (false, Vec::new());
    if let Some(wanted) = &query.having {
        having.0 = wanted.any;
        for (function, field, operator, number) in &wanted.tests {
            having
                .1
                .push((*function, scope.reach(field)?, *operator, *number));
        }
    }
    let mut order = Vec::new();
    for wanted in &query.order {
        let reach = scope.reach(&wanted.field)?;
        let key = || keys.iter().position(|key| *key == reach);
        let by = match wanted.function {
            Some(function) => Summary::Call(function, reach),
            None => Summary::Key(
                key().ok_or_else(|| not_grouped(scope, "Ordered field", &wanted.field))?,
            ),
        };
        order.push(GroupSort {
            by,
            descending: wanted.descending,
            nulls_last: wanted.nulls_last,
        });
    }
    Ok(Output::Groups {
        keys,
        columns,
        having,
        order,
    })
}

fn not_grouped(scope: &Scope<'_>, what: &str, path: &Path) -> ApiError {
    let name = path.parts.join(".");
    let message = format!("{what} must be grouped or aggregated: {name}");
    malformed(scope.located(path.at, &message))
}
