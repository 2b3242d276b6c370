// Use the theme that was chosen in the playground. Without storage, the page has that of the browser.
try {
  document.documentElement.style.colorScheme = localStorage.getItem('wxauth theme') ?? ''
} catch {}
