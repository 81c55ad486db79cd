"""The teaching graphs of the package; each file registers one."""
