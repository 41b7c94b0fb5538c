"""The product's page as a checklist: `page.md` is the contract, every item of it has a test in this folder."""
