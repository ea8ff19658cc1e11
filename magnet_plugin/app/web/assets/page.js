// Keys of the whole page: Ctrl+Enter (on a Mac also Cmd+Enter) presses the main button of the tab that is shown.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const shown = [...document.querySelectorAll("#mg-generate-run, #mg-edit-run")].find((button) => button.offsetParent);
  if (!shown || shown.disabled) return;
  event.preventDefault();
  event.stopPropagation();                                      // Enter would also switch a checkbox.
  if (event.target.type === "number") event.target.blur();      // Such fields take their value when they are left.
  setTimeout(() => shown.click(), 30);
}, true);
