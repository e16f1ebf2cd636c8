// A form of a platform's fields, made from its schema and checked as the user types.
import {element, setText} from "./base.js";

const LONG_CHARS = 4096; // a value that may be longer has several lines, as a certificate
const NAMED = /^([^=]*\S)\s*=\s*(.*)$/;

// What a property may be; besides, a value may be encrypted or absent.
function rules(schema, name) {
  const property = schema.properties[name] || {};
  return property.anyOf ? property.anyOf[0] : property;
}

// What a text means for a kind of field; undefined for one that can't be that.
const READERS = {
  string: (text) => text,
  integer: (text) => /^-?\d{1,15}$/.test(text.trim()) ? Number(text) : undefined,
  boolean: (text) => ({yes: true, no: false})[text],
  array: (text) => lines(text),
  object: (text) => {
    const pairs = lines(text).map((line) => NAMED.exec(line));
    return pairs.every(Boolean) ? Object.fromEntries(pairs.map(([, name, value]) => [name.trim(), value])) : undefined;
  },
};

function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function fits(value, rule) {
  if (Array.isArray(value)) return value.every((item) => fits(item, rule.items || {}));
  if (typeof value === "string") {
    const length = [...value].length;
    return length >= (rule.minLength || 0) && length <= (rule.maxLength ?? Infinity) &&
      (!rule.pattern || new RegExp(rule.pattern, "u").test(value)) && (!rule.enum || rule.enum.includes(value));
  }
  if (typeof value === "number") return value >= (rule.minimum ?? -Infinity) && value <= (rule.maximum ?? Infinity);
  return true;
}

function makeControl(field, rule) {
  const isChoice = field.kind === "boolean" || rule.enum;
  if (isChoice) {
    const control = element("select");
    const values = field.kind === "boolean" ? ["yes", "no"] : rule.enum;
    control.append(new Option(field.default ? "by default: " + field.default : "by default", ""), ...values.map((value) => new Option(value, value)));
    return control;
  }
  const isLong = field.kind === "array" || field.kind === "object" || rule.maxLength > LONG_CHARS;
  const control = element(isLong ? "textarea" : "input");
  if (isLong) control.rows = field.kind === "string" ? 2 : 3;
  else control.type = field.secret ? "password" : "text";
  if (field.kind === "integer") control.inputMode = "numeric";
  control.autocomplete = field.secret ? "new-password" : "off";
  control.spellcheck = false;
  return control;
}

const HOW = {array: "One a line.", object: "One a line, as name = value."};

// One field with its label, its help and its mistake.
export class FormField {
  constructor(field, schema, prefix) {
    this.field = field;
    this.rule = rules(schema, field.name);
    this.control = makeControl(field, this.rule);
    this.control.id = prefix + "-" + field.name;
    this.node = element("div", null, "field");
    const label = element("label", field.name.replaceAll("_", " ") + (field.required ? " (required)" : ""));
    label.htmlFor = this.control.id;
    const isShown = field.default && this.control.tagName !== "SELECT";
    const help = element("p", [field.description.replaceAll("`", ""), HOW[field.kind], isShown ? "By default: " + field.default + "." : ""].filter(Boolean).join(" "), "help");
    help.id = this.control.id + "-help";
    this.mistake = element("p", null, "mistake");
    this.mistake.id = this.control.id + "-mistake";
    this.control.required = field.required;
    this.control.setAttribute("aria-describedby", help.id + " " + this.mistake.id);
    this.node.append(label, this.control, help, this.mistake);
    this.suggest(field.choices);
    this.control.addEventListener("input", () => this.check());
    this.control.addEventListener("blur", () => this.check());
  }

  // Values that there are, besides which others may be.
  suggest(values) {
    if (!values.length || this.control.tagName !== "INPUT") return;
    const list = this.node.appendChild(element("datalist"));
    list.id = this.control.id + "-list";
    list.append(...values.map((value) => new Option(value)));
    this.control.setAttribute("list", list.id);
  }

  // The value; undefined for none.
  get value() {
    const text = this.control.value;
    return text.trim() === "" ? undefined : READERS[this.field.kind](this.field.kind === "string" && !this.field.secret ? text.trim() : text);
  }

  // Show what is wrong; true if nothing is.
  check() {
    const text = this.control.value, value = this.value;
    const isEmpty = text.trim() === "";
    const isRight = isEmpty ? !this.field.required : value !== undefined && fits(value, this.rule);
    setText(this.mistake, isRight ? "" : isEmpty ? "This is required." : "It " + this.field.rule + ".");
    if (isRight) this.control.removeAttribute("aria-invalid");
    else this.control.setAttribute("aria-invalid", "true");
    return isRight;
  }
}

// Check all; puts the focus on the first that is wrong, and opens what it is hidden in.
export function checkAll(fields) {
  const wrong = fields.filter((field) => !field.check());
  if (!wrong.length) return true;
  const details = wrong[0].node.closest("details");
  if (details) details.open = true;
  wrong[0].control.focus();
  return false;
}

// The values that are given, by name.
export function valuesOf(fields) {
  return Object.fromEntries(fields.map((one) => [one.field.name, one.value]).filter(([, value]) => value !== undefined));
}
